"""The counter of live memory, for the benchmarks and tests that take it from here."""

from autoseg.training.live_memory import FLOAT32_BYTES, LiveMemory

__all__ = ["FLOAT32_BYTES", "LiveMemory"]

"""Planners: one file per family, found by the entry point ``autoseg.planners``."""

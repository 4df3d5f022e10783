"""Trainers: one file per family, found by the entry point ``autoseg.trainers``."""

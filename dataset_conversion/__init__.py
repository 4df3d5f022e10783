"""Converters: one file per public dataset or format, found by the entry point ``autoseg.converters``."""

"""What pip calls this package, and which version it is; ``setup.cfg`` reads the version here."""

__version__ = "0.1.0"

DISTRIBUTION = "autoseg-lesion"
"""Another project on PyPI has the name autoseg, see ``autoseg_start.py``."""

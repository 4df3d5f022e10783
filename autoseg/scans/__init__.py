"""Scans as people have them: ordinary files, tables, BIDS datasets and DICOM folders become cases with channels."""

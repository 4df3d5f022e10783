"""The commands: one small file each; arguments in, one call, messages out.

A file is named after its command. ``common`` runs a command and reports its errors; ``scoring_options`` are the options
of those that score masks.
"""

"""A whole study of a dataset, from raw files to a compared and reported model: what ``autoseg_run`` does.

A study is data. ``study.json`` holds what the user asked for, what was decided so far with the numbers behind it, and a
list of **tasks**: an id, a command of autoseg as it would be typed, the files that it reads and leaves, and what it
needs. Nothing else is remembered: a task is done when a small record says that its command ended well and its files
are there, so a study that was killed at any moment goes on from what lies on the disk.

- ``study_json`` study.json, typed;
- ``state`` which tasks are done, running, waiting or failed, and the time that is left;
- ``executor`` works through tasks on this machine, one for each device; ``snakemake`` hands them to a cluster;
- ``planning`` the tasks of each phase; ``decisions`` what is decided between two; ``lengths`` how long is trained;
- ``steps_search`` and ``ensemble_folder`` what is done with out-of-fold probabilities;
- ``phases`` all of it, phase by phase.

Phases: *prepare* each family that was proposed; *measure* two short epochs of each; *trial* rounds of the same device
time on one fold; *folds* of those that went on; *out of fold*, where post-processing and ensembles are chosen; *final*.
The list grows by a phase when all tasks of the one before are done or failed, so it is fixed for what has begun.
"""

"""How well masks fit the truth: metrics of a case, a preset's choice of them, the summary of all cases.

From the ground up, each file importing those above it:

- ``text`` numbers and tables for reading, ``statistics`` intervals and tests, ``thresholds`` counts at all thresholds,
  ``strata`` cases split into levels: they know no metric;
- ``metrics/`` one row for each metric, ``presets`` which of them a challenge or a paper reports, ``metric_choice`` what
  is computed in one run;
- ``summary`` the typed summary.json, ``summary_text`` what is printed of it;
- ``case_files`` which files are a case, ``probabilities`` its counts at thresholds, ``score_case`` the scores of one
  case, ``cohort`` the summary out of all of them;
- ``score_masks`` the entrances: arrays and folders; ``output_folder`` where results may go.
"""

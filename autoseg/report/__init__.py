"""One self-contained HTML page about a training or an evaluation, with its figures and tables for a paper.

- Gathering: ``collect`` what lies in a folder, ``pool`` the cases of several folds as one.
- Drawing: ``drawing`` figures for page and paper, ``charts`` the figures, ``picture`` a case turned by ``planes``,
  ``montage`` its slices with outlines, ``overlay`` which cases (also those of autoseg_evaluate), ``viewer`` slices to
  scroll through, ``case_cards`` the cases that are shown.
- Writing: ``blocks`` what a page is made of, ``score_tables`` and ``sections`` what it says, ``page`` and
  ``report.html.j2`` put it together.
"""

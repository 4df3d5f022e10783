"""Methods and raters against each other, on the same cases.

- Methods (comparison.json): ``methods`` folders and the cases they share, ``ranking`` differences, tests and
  correction, ``notes`` what the numbers cannot say, ``compare_methods`` the whole comparison, ``comparison_schema``
  its file, ``comparison_text`` and ``figure`` for reading, ``comparison_files`` writes all of it.
- Raters (agreement.json): ``rater_pairs`` which runs are paired and the rows, ``raters`` from folders of masks,
  ``agreement_schema`` the file and what is printed.
"""

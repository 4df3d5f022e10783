"""What two masks are scored by: every metric is a row of the catalogue.

- ``pair`` two masks and what several metrics need of them, ``metric`` what a row says;
- ``overlap`` (and volume), ``distances`` between voxels, ``surface`` distances, ``shape``, ``lesions``: the rows;
- ``catalogue`` all rows by name, and the scores of a pair.
"""

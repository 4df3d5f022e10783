"""Raw datasets: their layout, files and geometry, faults and folds.

- ``dataset_json`` the typed file, ``raw_layout`` cases and their files, ``imageio`` images with their geometry
  (it names the files behind it), ``nifti`` one volume of a file;
- ``integrity`` what can be wrong, ``examine`` checks and measures every file for the fingerprint, ``folds``;
- ``conversion`` a download, described by a converter; ``raw_writer`` writes a raw dataset out of it.
"""

"""Raw datasets: their layout, files and geometry, faults and folds."""

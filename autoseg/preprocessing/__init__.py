"""From raw arrays to the working grid and back: crop, normalise, resample, the store."""

"""What two masks are scored by: every metric is a row of the catalogue."""

"""Methods and raters against each other, on the same cases."""

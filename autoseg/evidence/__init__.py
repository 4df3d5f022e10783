"""What a fingerprint says about the kind of data: measured once here, weighed by each planner."""

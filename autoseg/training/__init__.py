"""The one training loop and what it needs: trainers, optimisers, schedules, checkpoints, the journal."""

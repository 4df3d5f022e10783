"""From a raw dataset to a plan and a store."""

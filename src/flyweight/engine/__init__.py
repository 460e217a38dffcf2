"""Training and evaluation: the loop, its state on disk, objectives and hooks."""

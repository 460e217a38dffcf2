"""Detection sets: readers, the check, augmentations and loaders."""

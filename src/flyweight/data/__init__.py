"""Data sets: readers and writers of layouts, the data check, augmentations and loaders."""

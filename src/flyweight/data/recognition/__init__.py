"""Recognition of the layout of a folder: which reader fits, with which settings."""

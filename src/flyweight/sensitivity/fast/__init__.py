"""Fast scans: fewer images, fewer ratios, with intervals."""

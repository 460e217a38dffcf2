"""Planning: from ratios, scans, budgets and rankings to the channels that a network keeps."""

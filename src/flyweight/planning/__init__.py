"""Planning: from budgets, ratios or rankings to the widths that a network keeps."""

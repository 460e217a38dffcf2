"""Sources of networks and weights outside the built-in table."""

"""Repair after a cut, before any training and without labels."""

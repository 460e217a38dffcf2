"""Steps of a repair after a cut, before any training and without labels."""

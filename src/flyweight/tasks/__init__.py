"""Tasks of vision models (detect, classify, segment): losses, decoding, metrics and drawing."""

"""Decoding: from network outputs to predictions in image pixels."""

"""Decoding of raw outputs into predictions."""

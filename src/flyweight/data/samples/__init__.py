"""Samples: one image with its target, transformed for the network."""

"""Backbones: networks that return feature maps."""

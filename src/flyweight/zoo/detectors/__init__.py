"""Detectors, with their heads, anchors and suppression."""

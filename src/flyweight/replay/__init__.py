"""Recorded runs of a network: run again from a step on, or in lockstep before and after a cut."""

"""Readers and writers of data set layouts."""

"""Measuring: latency of exported files, and latency tables of layers."""

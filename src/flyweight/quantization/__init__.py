"""Quantization: integers in place of float numbers, as the runtimes compute with them."""

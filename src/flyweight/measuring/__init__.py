"""Latency, memory and size of exported files, measured on the runtime that will serve them."""

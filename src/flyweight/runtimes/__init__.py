"""Runtimes: the programs that execute exported files, behind one protocol and one table of names.

The measuring process imports this folder, so nothing here imports torch, pydantic or onnx.
"""

"""Exporting: ONNX files with their descriptions, compared with PyTorch before they are written."""

"""Files that leave Python: ONNX with its description, each checked against the model."""

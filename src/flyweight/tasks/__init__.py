"""What models are for: loss, decoding, metric and images of each kind of task."""

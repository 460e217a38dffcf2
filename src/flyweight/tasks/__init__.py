"""What models are for: loss, decoding, metric and pictures of each kind of task."""

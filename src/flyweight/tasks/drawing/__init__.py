"""Drawing of predictions on images."""

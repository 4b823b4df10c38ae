"""A trained classifier as a folder of its own: merged weights, a description, ONNX, a card."""

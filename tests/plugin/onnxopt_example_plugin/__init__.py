"""A pass for onnxopt, as small as can be."""

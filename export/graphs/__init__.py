"""ONNX graphs: traced, brought to half precision, rounded, and compared with the network."""

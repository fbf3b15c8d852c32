"""From a trained checkpoint to a bundle: networks, ONNX graphs, and the proof that they agree."""

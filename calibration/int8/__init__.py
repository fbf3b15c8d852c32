"""INT8 graphs of bundles: quantised on images of the line, proven against the FP32 graph."""

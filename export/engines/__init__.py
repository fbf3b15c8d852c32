"""TensorRT engines: built, named after what they run on, held against the graph, kept in the bundle."""

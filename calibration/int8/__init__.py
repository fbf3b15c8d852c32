"""INT8 graphs: ranges from images of the line, quantisation, and proof that they still decide alike."""

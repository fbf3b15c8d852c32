"""Training, from a folder of good images to a checkpoint: data, cached features, and the fit of the flow."""

"""From a folder of good images to a checkpoint: data, cached features, and fitting the flow."""

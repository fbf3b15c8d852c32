"""Archives larger than one machine: shards of images, inspected by workers of a Ray cluster. Start with `shards.py`."""

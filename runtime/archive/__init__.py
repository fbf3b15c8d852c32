"""Archives of images, inspected shard by shard by the workers of a Ray cluster. Start reading at `shards.py`."""

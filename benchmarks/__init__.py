"""``uflow-bench``, and the demo; ``studies/`` is not installed."""

"""``uflow-infer``: its options, receivers and console output."""

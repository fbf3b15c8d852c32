"""``uflow-infer``: its options, its wiring, its console."""

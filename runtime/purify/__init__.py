"""``uflow-purify``: reads image files and writes purified PNG files. The mathematics is in ``runtime/diffusion``."""

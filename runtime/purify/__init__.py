"""Picture files in, purified PNG files out: ``uflow-purify``. The mathematics is in ``runtime/diffusion``."""

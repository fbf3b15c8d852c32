"""Studies: what answers a research question. They run from a checkout and are not in the wheel."""

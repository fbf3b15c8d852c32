"""``uflow-bench``: how fast a bundle is on this machine, with every engine, also compared with another bundle."""

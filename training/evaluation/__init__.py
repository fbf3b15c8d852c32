"""How well a bundle finds and outlines defects: ``uflow-evaluate``, the paper's metrics in bounded memory."""

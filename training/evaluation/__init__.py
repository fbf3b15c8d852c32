"""``uflow-evaluate``: measures how well a bundle finds and outlines defects, in bounded memory."""

"""Calibration: what good images of the line itself look like, and what can be promised about them."""

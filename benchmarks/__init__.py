"""Measurements: how good, how fast, and against what."""

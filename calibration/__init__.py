"""Fits a bundle to its line: null model, operating point, INT8."""

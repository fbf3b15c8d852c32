"""Calibration of bundles: null model, operating point, INT8."""

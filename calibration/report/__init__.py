"""The report of a calibration, one HTML page."""

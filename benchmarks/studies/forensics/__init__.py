"""Traces planted in photographs, detectors that look for them, and how well purification takes them away."""

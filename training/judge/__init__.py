"""Judges candidates of a training by defects that are drawn into held-out good images."""

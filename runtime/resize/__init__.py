"""Resizing as Pillow does it, bit for bit."""

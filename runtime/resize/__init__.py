"""Resizing on the CPU, bit for bit as Pillow does it."""

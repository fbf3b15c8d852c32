"""Atomic writing of files and folders, and bounded, checked reading of JSON and arrays."""

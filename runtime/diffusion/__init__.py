"""Diff-CF and Diff-CFG (Tailanian et al., WACV 2024, arXiv 2311.13629): purify images with a diffusion network."""

"""The cosines of JPEG's 8 × 8 blocks."""

import math

import numpy as np

BLOCK = 8
COSINES = np.array(
    [[math.sqrt((2 if k else 1) / 8) * math.cos(math.pi * (2 * i + 1) * k / 16) for i in range(8)] for k in range(8)],
    np.float32,
)
"""Orthonormal: the coefficients of a block are ``COSINES @ block @ COSINES.T``."""

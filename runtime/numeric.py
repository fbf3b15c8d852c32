"""Array types that the whole package shares."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatMap: TypeAlias = NDArray[np.float32]
IndexMap: TypeAlias = NDArray[np.int32]
Image: TypeAlias = NDArray[np.uint8]
Size: TypeAlias = tuple[int, int]
"""(height, width) in pixels."""

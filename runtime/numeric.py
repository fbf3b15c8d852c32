"""Array types that the whole package shares."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatMap: TypeAlias = NDArray[np.float32]
IndexMap: TypeAlias = NDArray[np.int32]
Image: TypeAlias = NDArray[np.uint8]
Frame: TypeAlias = NDArray[Any] | None
"""What is handed in as a frame: OpenCV's own annotations say no more of what ``cv2.imread`` returns. It is checked."""
Size: TypeAlias = tuple[int, int]
"""(height, width) in pixels."""

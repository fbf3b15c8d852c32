"""Where in an image the 8 × 8 grid of JPEG shows, and where it lies differently: a detector with a false-alarm count.

Our own writing of the idea of ZERO (Nikoukhah, Anger, Colom, Morel, Grompone von Gioi, "ZERO: a Local JPEG Grid Origin
Detector Based on the Number of DCT Zeros and its Applications in Image Forensics", IPOL 2021). JPEG rounds most DCT
coefficients of a block to zero, so a window that lies on the grid has more zeros than its neighbours. Each pixel votes
for the window with the most zeros among the 64 that contain it, and so for one of 64 grid origins. In an image that
never was a JPEG each origin gets 1/64 of the votes; more is judged by the number of false alarms (NFA).
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from uflow_edge.benchmarks.studies.forensics.chance import log10_binomial_tail
from uflow_edge.benchmarks.studies.forensics.dct import BLOCK, COSINES
from uflow_edge.benchmarks.studies.forensics.luminance import luminance
from uflow_edge.runtime.numeric import FloatMap, Image

ORIGINS = BLOCK * BLOCK
NO_VOTE = -1
_ZERO = 0.5  # a coefficient that rounds to zero
_ABSENT = 1e-2  # a coefficient that is zero but for float32's rounding
_REACH = 9  # votes closer than this belong to one region


@dataclass(frozen=True, slots=True)
class Grid:
    """A grid origin that gets more votes than chance explains.

    Attributes:
        origin: (row, column) of the grid, 0 to 7 each.
        log_nfa: log10 of the number of false alarms; below 0 is a detection.
        box: (top, left, bottom, right) of the votes.
    """

    origin: tuple[int, int]
    log_nfa: float
    box: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class GridDetection:
    """What the votes say.

    Attributes:
        votes: (H, W) int, index 8·row + column of the grid origin, or `NO_VOTE`.
        main: the grid of the whole image, if one is detected.
        most_likely: the grid of the whole image that comes closest to being detected.
        foreign: regions with another grid than the main one, most certain first, those that are detected and those
            that are not.
    """

    votes: NDArray[np.int16]
    main: Grid | None
    most_likely: Grid
    foreign: tuple[Grid, ...]

    @property
    def main_score(self) -> float:
        """−log10 NFA of the whole image's grid; above 0 it is known to have been a JPEG."""
        return -self.most_likely.log_nfa

    @property
    def foreign_score(self) -> float:
        """−log10 NFA of the most certain foreign grid; above 0 the image was put together."""
        return -self.foreign[0].log_nfa if self.foreign else -self._no_region

    @property
    def _no_region(self) -> float:
        return _region_tests(self.votes.shape)


def detect_grids(image_rgb: Image) -> GridDetection:
    """Look for the grid of the whole image and for regions with another one.

    Args:
        image_rgb: (H, W, 3) uint8, at least 64 pixels a side.
    """
    votes = grid_votes(luminance(image_rgb))
    counts = np.bincount(votes[votes != NO_VOTE], minlength=ORIGINS)
    best = int(counts.argmax())
    height, width = votes.shape
    log_nfa = math.log10(ORIGINS) + _log10_tail(int(counts[best]), height * width)
    most_likely = Grid(divmod(best, BLOCK), log_nfa, (0, 0, height, width))
    main = most_likely if log_nfa < 0 else None
    foreign = [
        region
        for origin in range(ORIGINS)
        if main is None or origin != best
        for region in _regions(votes == origin, origin)
    ]
    return GridDetection(votes, main, most_likely, tuple(sorted(foreign, key=lambda region: region.log_nfa)))


def grid_votes(luma: FloatMap) -> NDArray[np.int16]:
    """For each pixel the grid origin whose window has the most zeros; ties and flat windows give no vote.

    Args:
        luma: (H, W) float32, 0 to 255.

    Returns:
        (H, W), see `GridDetection.votes`.
    """
    zeros = dct_zeros(luma)
    around = sliding_window_view(zeros, (BLOCK, BLOCK)).reshape(zeros.shape[0] - 7, zeros.shape[1] - 7, ORIGINS)
    most = around.max(axis=2)
    winner = around.argmax(axis=2)
    unique = (around == most[:, :, None]).sum(axis=2) == 1
    rows, columns = np.indices(winner.shape)
    origin = (rows + winner // BLOCK) % BLOCK * BLOCK + (columns + winner % BLOCK) % BLOCK
    votes = np.full(luma.shape, NO_VOTE, np.int16)
    inner = votes[BLOCK - 1 : luma.shape[0] - BLOCK + 1, BLOCK - 1 : luma.shape[1] - BLOCK + 1]
    inner[...] = np.where(unique & (most > 0), origin, NO_VOTE)
    return votes


def dct_zeros(luma: FloatMap) -> NDArray[np.int16]:
    """Number of AC coefficients that round to zero in each 8 × 8 window; 0 where a window is constant along an axis.

    Args:
        luma: (H, W) float32.

    Returns:
        (H − 7, W − 7), by the window's top left corner.
    """
    along_rows = sliding_window_view(luma, BLOCK, axis=1) @ COSINES.T  # (H, W − 7, 8)
    coefficients = np.abs(sliding_window_view(along_rows, BLOCK, axis=0) @ COSINES.T)  # (H − 7, W − 7, 8, 8)
    zero, absent = coefficients < _ZERO, coefficients < _ABSENT
    constant = absent[:, :, 1:, :].all(axis=(2, 3)) | absent[:, :, :, 1:].all(axis=(2, 3))
    zeros = zero.sum(axis=(2, 3), dtype=np.int16) - zero[:, :, 0, 0]
    return np.where(constant, 0, zeros).astype(np.int16)


def _regions(voted: NDArray[np.bool_], origin: int) -> list[Grid]:
    """Votes for one origin that lie close together, each group with its NFA."""
    grown = cv2.dilate(voted.astype(np.uint8), np.ones((_REACH, _REACH), np.uint8))
    _, labels = cv2.connectedComponents(grown, connectivity=8)
    rows, columns = np.nonzero(voted)
    group = labels[rows, columns]
    found = []
    for label in np.unique(group):
        y, x = rows[group == label], columns[group == label]
        box = (int(y.min()), int(x.min()), int(y.max()) + 1, int(x.max()) + 1)
        area = (box[2] - box[0]) * (box[3] - box[1])
        found.append(Grid(divmod(origin, BLOCK), _region_tests(voted.shape) + _log10_tail(len(y), area), box))
    return found


def _region_tests(shape: tuple[int, ...]) -> float:
    """log10 of the number of boxes and origins that are looked at, as in the paper: 64 · XY · √(XY)."""
    return math.log10(ORIGINS) + 1.5 * math.log10(shape[0] * shape[1])


def _log10_tail(votes: int, pixels: int) -> float:
    """Of that many votes by chance. A window gives up to 64 pixels the same vote, so 64 pixels count as one."""
    return log10_binomial_tail(votes / ORIGINS, pixels / ORIGINS, 1 / ORIGINS)

"""Max-tree of one map, pruned and merged to its most significant disjoint regions, in linear time after the sort.

The tree is built by union-find over the pixels from the highest down (Berger et al., "Effective component tree
computation with application to pattern recognition in astronomical imaging", ICIP 2007). A pixel stands for its
node when it is the last of its flat zone to be visited: the node's *canonical* pixel.

U-Flow prunes and merges in alternation until nothing changes (paper, section 4.3). Both only ever look down a
subtree, so one pass from the leaves to the root settles them: a subtree either *collapses* into its single best node
or keeps several.
"""

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.compiled import compiled
from uflow_edge.runtime.numeric import FloatMap, IndexMap

_RADIX_BITS = 11
_RADIX = 1 << _RADIX_BITS
_OUTSIDE = -1
_LOWEST = -1e36
"""Lower limit of values, so that they stay finite in float32 and when maps are resized and added."""


@compiled
def _ascending_order(levels: FloatMap) -> IndexMap:
    """Stable argsort of non-negative float32, whose bit patterns sort like the numbers: three counting passes."""
    keys = levels.view(np.uint32)
    n = keys.size
    counts = np.zeros((3, _RADIX), np.int32)
    for key in keys:
        counts[0, key & (_RADIX - 1)] += 1
        counts[1, (key >> _RADIX_BITS) & (_RADIX - 1)] += 1
        counts[2, key >> (2 * _RADIX_BITS)] += 1
    order, scratch = np.arange(n).astype(np.int32), np.empty(n, np.int32)
    for digit in range(3):
        shift = digit * _RADIX_BITS
        position = 0
        for bucket in range(_RADIX):
            count = counts[digit, bucket]
            counts[digit, bucket] = position
            position += count
        for pixel in order:
            bucket = (keys[pixel] >> shift) & (_RADIX - 1)
            scratch[counts[digit, bucket]] = pixel
            counts[digit, bucket] += 1
        order, scratch = scratch, order
    return order


@compiled
def _find(root: IndexMap, pixel: int) -> int:
    while root[pixel] != pixel:
        root[pixel] = root[root[pixel]]
        pixel = root[pixel]
    return pixel


@compiled
def _build(levels: FloatMap, order: IndexMap, width: int) -> IndexMap:
    """Parents of the max-tree under 4-connectivity; every parent is canonical, the root is its own parent."""
    n = levels.size
    parent = np.empty(n, np.int32)
    root = np.full(n, _OUTSIDE, np.int32)
    for i in range(n - 1, -1, -1):
        pixel = order[i]
        parent[pixel] = root[pixel] = pixel
        column = pixel % width
        for side in range(4):
            if side == 0:
                inside, neighbour = pixel >= width, pixel - width
            elif side == 1:
                inside, neighbour = column > 0, pixel - 1
            elif side == 2:
                inside, neighbour = column < width - 1, pixel + 1
            else:
                inside, neighbour = pixel + width < n, pixel + width
            if inside and root[neighbour] != _OUTSIDE:
                top = _find(root, neighbour)
                if top != pixel:
                    parent[top] = root[top] = pixel
    for pixel in order:
        above = parent[pixel]
        if levels[parent[above]] == levels[above]:
            parent[pixel] = parent[above]
    return parent


@compiled
def select_regions(
    levels: FloatMap,
    log_tail: NDArray[np.float64],
    repeats: NDArray[np.float64],
    log_tests: NDArray[np.float64],
    width: int,
) -> tuple[IndexMap, NDArray[np.float64]]:
    """The regions of a map that survive pruning and merging.

    A node of n pixels whose canonical pixel is q is worth ``repeats[n] * log_tail[q] + log_tests[n]``; the lower, the
    more significant. Of two nodes on one branch with equal value the inner one stays; a bifurcation that equals its
    best child replaces its children.

    Args:
        levels: (H*W,) float32, finite and not negative: what the upper level sets are taken of.
        log_tail: (H*W,) log10 of the tail probability of each pixel's own level.
        repeats: (H*W + 1,) how many independent pixels a region of n pixels is worth.
        log_tests: (H*W + 1,) log10 of the number of tests a region of n pixels pays for.
        width: W, pixels in a row.

    Returns:
        For each pixel the canonical pixel of the region it belongs to, or −1 outside all regions, (H*W,) int32; and
        for each canonical pixel the value of its node, (H*W,) float64, meaningless elsewhere.
    """
    n = levels.size
    order = _ascending_order(levels)
    parent = _build(levels, order, width)

    area = np.ones(n, np.int32)
    children = np.zeros(n, np.int32)
    collapses = np.ones(n, np.bool_)
    value = np.empty(n)
    best_value = np.full(n, np.inf)  # of the children until the node itself is visited, then of its whole subtree
    best_node = np.full(n, _OUTSIDE, np.int32)
    for i in range(n - 1, -1, -1):
        pixel = order[i]
        above = parent[pixel]
        if levels[above] == levels[pixel] and above != pixel:
            area[above] += 1
            continue
        value[pixel] = repeats[area[pixel]] * log_tail[pixel] + log_tests[area[pixel]]
        if collapses[pixel]:
            if children[pixel] > 1:
                collapses[pixel] = value[pixel] <= best_value[pixel]
                wins = collapses[pixel]
            else:
                wins = children[pixel] == 0 or value[pixel] < best_value[pixel]
            if wins:
                best_value[pixel] = value[pixel]
                best_node[pixel] = pixel
        if above != pixel:
            area[above] += area[pixel]
            children[above] += 1
            if not collapses[pixel]:
                collapses[above] = False
            elif best_value[pixel] < best_value[above] or best_node[above] == _OUTSIDE:
                best_value[above] = best_value[pixel]
                best_node[above] = best_node[pixel]

    region = np.full(n, _OUTSIDE, np.int32)
    selected = np.zeros(n, np.bool_)
    for pixel in order:
        above = parent[pixel]
        if levels[above] == levels[pixel] and above != pixel:
            region[pixel] = region[above]
            continue
        if collapses[pixel] and (above == pixel or not collapses[above]):
            selected[best_node[pixel]] = True
        if above != pixel and region[above] != _OUTSIDE:
            region[pixel] = region[above]
        elif selected[pixel]:
            region[pixel] = pixel
    return region, value


@compiled
def _paint(region: IndexMap, value: NDArray[np.float64], outside: float, unique_values: bool) -> FloatMap:
    n = region.size
    painted = np.zeros(n, np.bool_)
    for pixel in range(n):
        if region[pixel] == pixel:
            painted[pixel] = True
    if unique_values:
        nodes = np.flatnonzero(painted)
        for i, node in enumerate(nodes):  # numba compiles this in no time, and a sort in a second and a half
            for later in nodes[i + 1 :]:
                if value[node] == value[later]:
                    painted[node] = False
                    break
    out = np.full(n, outside, np.float32)
    for pixel in range(n):
        if region[pixel] != _OUTSIDE and painted[region[pixel]]:
            out[pixel] = max(value[region[pixel]], _LOWEST)
    return out


@compiled
def region_map(
    levels: FloatMap,
    log_tail: NDArray[np.float64],
    repeats: NDArray[np.float64],
    log_tests: NDArray[np.float64],
    width: int,
    outside: float,
    unique_values: bool,
) -> FloatMap:
    """`select_regions`, then each pixel's value, −1e36 at least, or ``outside``; (H*W,) float32.

    With ``unique_values``, of regions with exactly equal values only the one whose canonical pixel comes last in
    memory is painted, as upstream does by keying regions with their value.
    """
    region, value = select_regions(levels, log_tail, repeats, log_tests, width)
    return _paint(region, value, outside, unique_values)


@compiled
def opening_maxima(levels: FloatMap, width: int, classes: int) -> tuple[FloatMap, IndexMap]:
    """Levels of the regional maxima of the map's area openings by 1, 2, 4, … 2^(classes − 1) pixels.

    They are the nodes of so many pixels, none of whose children has as many.

    Args:
        levels: (H*W,) float32, finite, not negative.
        width: W.
        classes: number of openings.

    Returns:
        Level and class of every maximum, (M,) each, in no order.
    """
    n = levels.size
    order = _ascending_order(levels)
    parent = _build(levels, order, width)
    area = np.ones(n, np.int32)
    largest_child = np.zeros(n, np.int32)
    maxima = np.empty(n * classes, np.float32)
    of_class = np.empty(n * classes, np.int32)
    count = 0
    for i in range(n - 1, -1, -1):
        pixel = order[i]
        above = parent[pixel]
        if levels[above] == levels[pixel] and above != pixel:
            area[above] += 1
            continue
        for one in range(classes):
            if largest_child[pixel] < 1 << one <= area[pixel]:
                maxima[count] = levels[pixel]
                of_class[count] = one
                count += 1
        if above != pixel:
            area[above] += area[pixel]
            largest_child[above] = max(largest_child[above], area[pixel])
    return maxima[:count].copy(), of_class[:count].copy()

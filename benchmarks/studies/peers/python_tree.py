"""The tree NFA as one writes it down in plain Python: the stand-in for the authors' own (paper, section 4).

scikit-image builds the max-tree; its nodes become Python objects; pruning and merging walk over them in turn until
nothing changes. It is our own writing and not the authors' code, but it gives the numbers of their code. What the
runtime does in one compiled pass is told here step by step.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import log

import numpy as np
import torch
import torch.nn.functional as F
from skimage.morphology import max_tree

from uflow_edge.runtime.nfa.counts import log10_tests, pixels_of
from uflow_edge.runtime.numeric import FloatMap


@dataclass(slots=True, eq=False)
class Node:
    """A connected region, all of whose pixels reach a level.

    Attributes:
        pixel: that stands for it.
        level: the lowest of its pixels, E/C.
        parent: the next larger region; None at the root.
        children: the next smaller ones.
        pixels: all of its own, those of its children included.
        log_probability: log10 of the chance of it under the null model.
    """

    pixel: int
    level: np.float32
    parent: "Node | None"
    children: "list[Node]" = field(default_factory=list)
    pixels: list[int] = field(default_factory=list)
    log_probability: float = 0.0


def tree_score(energies: Sequence[FloatMap], channels: Sequence[int], side: int) -> FloatMap:
    """Map of −log10 NFA by the authors' rule.

    Args:
        energies: per scale, (H_i, W_i) float32: sum of squared latents over channels.
        channels: per scale, C_i.
        side: S, of the result.

    Returns:
        (S, S) float32; above 0, fewer than one detection is expected by chance.
    """
    grown = []
    for energy, count in zip(energies, channels, strict=True):
        log_probability = torch.from_numpy(tree_log_probability(energy, count))
        grown.append(F.interpolate(log_probability[None, None], size=(side, side), mode="bilinear")[0, 0])
    lowest = torch.stack(grown).min(dim=0).values
    return np.asarray(-lowest.numpy() - np.float32(log10_tests(pixels_of(energies))), np.float32)


def tree_log_probability(energy: FloatMap, channels: int) -> FloatMap:
    """log10 of the probability of the most significant regions of one scale, and 0 outside them, (H, W) float32."""
    root = _build(energy / np.float32(channels))
    for node in _nodes(root):
        node.log_probability = _log_probability(node, channels)
    merged = True
    while merged:
        root = _prune(root)
        merged = _merge(root)
    leaves = sorted((node for node in _nodes(root) if not node.children), key=lambda node: node.pixel)
    regions = {leaf.log_probability: leaf for leaf in leaves}  # of regions with equal values the authors keep one
    painted = np.zeros(energy.size, np.float32)
    for value, leaf in regions.items():
        painted[leaf.pixels] = value
    return painted.reshape(energy.shape)


def _build(levels: FloatMap) -> Node:
    """The root of the max-tree under 4-connectivity."""
    parents, order = max_tree(levels, connectivity=1)
    parents, flat = parents.ravel(), levels.ravel()
    nodes: dict[int, Node] = {}
    for pixel in order:  # from the root up
        above = parents[pixel]
        if not nodes:
            nodes[pixel] = Node(pixel, flat[pixel], None)
        elif flat[above] != flat[pixel]:
            nodes[pixel] = Node(pixel, flat[pixel], nodes[above])
            nodes[above].children.append(nodes[pixel])
        else:
            nodes[above].pixels.append(pixel)
    for node in reversed(nodes.values()):
        node.pixels.append(node.pixel)
        if node.parent is not None:
            node.parent.pixels.extend(node.pixels)
    return nodes[order[0]]


def _nodes(root: Node) -> Iterator[Node]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(node.children)


def _log_probability(node: Node, channels: int) -> float:
    """Chernoff's bound on the tail of the χ² law, a factor a pixel."""
    level = max(node.level, np.finfo(np.float32).tiny)
    excess = float(node.level) - 1 - float(np.log(level))  # the logarithm in float32, as the authors take it
    return -len(node.pixels) * channels / 2 * excess / log(10)


def _prune(root: Node) -> Node:
    """Of every branch, from a leaf towards the first bifurcation, keep the most significant node; the new root."""
    for leaf in [node for node in _nodes(root) if not node.children]:
        branch = [leaf]
        while (above := branch[-1].parent) is not None and len(above.children) == 1:
            branch.append(above)
        best = min(branch, key=lambda node: node.log_probability)
        best.children, best.parent = [], above
        if above is None:
            return best
        above.children[above.children.index(branch[-1])] = best
    return root


def _merge(root: Node) -> bool:
    """Let a bifurcation take the place of its children where all are leaves and none is more significant."""
    merged = False
    for node in list(_nodes(root)):
        if len(node.children) > 1 and not any(child.children for child in node.children):
            lowest = min(child.log_probability for child in node.children)
            if node.log_probability <= lowest:
                node.children, merged = [], True
    return merged

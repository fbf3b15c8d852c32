"""The two score maps that are measured, in pixels of the original image, like its mask.

The product decides by ``nfa``, −log10 NFA. The paper ranks images and pixels by ``likelihood``, the anomaly map of its
section 3.3.
"""

from typing import Literal, TypeAlias

import cv2
import numpy as np

from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.nfa import likelihood_map
from uflow_edge.runtime.numeric import FloatMap
from uflow_edge.training.evaluation.score_axis import EvenAxis, ScoreAxis, SignedLogAxis

MapName: TypeAlias = Literal["nfa", "likelihood"]
AXES: dict[MapName, ScoreAxis] = {"nfa": SignedLogAxis(), "likelihood": EvenAxis()}


def score_maps(inspection: Inspection, channels: tuple[int, ...]) -> dict[MapName, FloatMap]:
    """Both score maps in pixels of the frame, (H, W) float32; the lowest score outside the inspected area.

    Args:
        channels: channels of the latents, per scale.
    """
    left, top, right, bottom = inspection.box
    size = (bottom - top, right - left)
    nfa = np.full(inspection.verdict.size, -np.inf, np.float32)
    # Enlarged in the same way as masks, so that a threshold on these scores gives the mask of the verdict.
    nfa[top:bottom, left:right] = cv2.resize(inspection.score, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    likelihood = np.zeros_like(nfa)
    likelihood[top:bottom, left:right] = likelihood_map(inspection.energies, channels, size)
    return {"nfa": nfa, "likelihood": likelihood}

"""The score maps that are measured, in pixels of the original image, like its mask.

The product decides by ``nfa``, −log10 NFA, and ranks pixels by ``evidence``, see `Inspection.evidence`. The paper ranks
images and pixels by ``likelihood``, the anomaly map of its section 3.3.
"""

from typing import Literal, TypeAlias

import cv2
import numpy as np

from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.nfa import likelihood_map
from uflow_edge.runtime.numeric import FloatMap
from uflow_edge.training.evaluation.score_axis import EvenAxis, ScoreAxis, SignedLogAxis

MapName: TypeAlias = Literal["nfa", "evidence", "likelihood"]
AXES: dict[MapName, ScoreAxis] = {"nfa": SignedLogAxis(), "evidence": SignedLogAxis(), "likelihood": EvenAxis()}


def score_maps(inspection: Inspection, channels: tuple[int, ...]) -> dict[MapName, FloatMap]:
    """All score maps in pixels of the frame, (H, W) float32; the lowest score outside the inspected area.

    Args:
        channels: channels of the latents, per scale.
    """
    left, top, right, bottom = inspection.box
    size = (bottom - top, right - left)
    nfa = np.full(inspection.verdict.size, -np.inf, np.float32)
    evidence, likelihood = np.zeros_like(nfa), np.zeros_like(nfa)
    # Enlarged in the same way as masks, so that a threshold on these maps gives the mask of the verdict.
    for whole, scores in ((nfa, inspection.score), (evidence, inspection.evidence())):
        whole[top:bottom, left:right] = cv2.resize(scores, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    likelihood[top:bottom, left:right] = likelihood_map(inspection.energies, channels, size)
    return {"nfa": nfa, "evidence": evidence, "likelihood": likelihood}

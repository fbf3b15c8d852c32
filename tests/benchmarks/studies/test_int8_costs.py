"""What the INT8 study counts."""

import numpy as np
import pytest

from uflow_edge.benchmarks.studies.int8_costs import auroc


def test_auroc_counts_pairs() -> None:
    scores, defective = np.array([0.0, 1.0, 1.0, 3.0]), np.array([False, False, True, True])
    assert auroc(scores, defective) == pytest.approx(3.5 / 4)
    assert auroc(scores, np.zeros(4, bool)) is None

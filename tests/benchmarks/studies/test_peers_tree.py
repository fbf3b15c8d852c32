"""The tree NFA in plain Python against what the authors' code computed."""

from pathlib import Path

import numpy as np
import pytest

from uflow_edge.benchmarks.studies.peers.python_tree import tree_log_probability, tree_score

DATA = Path(__file__).parents[2] / "data"
PHOTOGRAPHED = ["good", "defective", "painted"]
ARRAYS = {**np.load(DATA / "nfa_cases.npz"), **np.load(DATA / "energy_cases.npz")}
CASES = [str(name) for name in ARRAYS["case_names"]] + PHOTOGRAPHED


def energies_and_channels(case: str) -> tuple[list[np.ndarray], list[int]]:
    scales = sum(key.startswith(f"{case}/energy_") for key in ARRAYS)
    energies = [ARRAYS[f"{case}/energy_{i}"] for i in range(scales)]
    return energies, [int(ARRAYS[f"{case}/channels_{i}"]) for i in range(scales)]


@pytest.mark.parametrize("case", CASES)
def test_score_is_the_authors(case: str) -> None:
    score, authors = tree_score(*energies_and_channels(case), 256), ARRAYS[f"{case}/tree_score_256"]
    assert score.dtype == np.float32
    assert (np.abs(score - authors) <= 0.1 + 1e-4 * np.abs(authors)).all()
    np.testing.assert_array_equal(score > 0, authors > 0)


@pytest.mark.parametrize("case", CASES)
def test_regions_are_the_authors_at_every_scale(case: str) -> None:
    for i, (energy, channels) in enumerate(zip(*energies_and_channels(case), strict=True)):
        authors = ARRAYS[f"{case}/tree_logprob_{i}"]
        found = tree_log_probability(energy, channels)
        inside = ~np.isnan(authors)
        tolerance = 4e-5 * np.maximum(1, np.abs(authors[inside]))
        assert (np.abs(found[inside] - authors[inside]) <= tolerance).all()
        assert (found[~inside] == 0).all()

"""The scores against what the authors' code computed from the same energies and counts."""

from pathlib import Path

import numpy as np
import pytest

from uflow_edge.runtime.nfa import block_score, likelihood_map, tree_score
from uflow_edge.runtime.nfa.counts import log10_tests

DATA = Path(__file__).parents[2] / "data"
CASES = dict(np.load(DATA / "nfa_cases.npz"))
IMAGES = dict(np.load(DATA / "energy_cases.npz"))
SYNTHETIC = [str(name) for name in CASES["case_names"]]
PHOTOGRAPHED = ["good", "defective", "painted"]


def maps(case: str, kind: str) -> tuple[list[np.ndarray], list[int]]:
    arrays = IMAGES if case in PHOTOGRAPHED else CASES
    scales = sum(1 for key in arrays if key.startswith(f"{case}/{kind}_"))
    return [arrays[f"{case}/{kind}_{i}"] for i in range(scales)], [
        int(arrays[f"{case}/channels_{i}"]) for i in range(scales)
    ]


def expected(case: str, name: str) -> np.ndarray:
    return (IMAGES if case in PHOTOGRAPHED else CASES)[f"{case}/{name}"]


@pytest.mark.parametrize("case", SYNTHETIC + PHOTOGRAPHED)
def test_tree_score_is_upstreams(case: str) -> None:
    energies, channels = maps(case, "energy")
    score = tree_score(energies, channels, (256, 256), rule="upstream")
    upstream = expected(case, "tree_score_256")
    assert score.dtype == np.float32
    assert (np.abs(score - upstream) <= 0.1 + 1e-4 * np.abs(upstream)).all()
    np.testing.assert_array_equal(score > 0, upstream > 0)


@pytest.mark.parametrize(("case", "size"), [("03_r18_three_blobs", 128), ("07_nonsquare_blob", 100)])
def test_tree_score_at_other_sizes(case: str, size: int) -> None:
    energies, channels = maps(case, "energy")
    upstream = expected(case, f"tree_score_{size}")
    score = tree_score(energies, channels, (size, size), rule="upstream")
    assert (np.abs(score - upstream) <= 0.1 + 1e-4 * np.abs(upstream)).all()


@pytest.mark.parametrize("case", SYNTHETIC + PHOTOGRAPHED)
def test_regions_paint_the_same_pixels_at_every_scale(case: str) -> None:
    energies, channels = maps(case, "energy")
    for scale, (energy, count) in enumerate(zip(energies, channels, strict=True)):
        upstream = expected(case, f"tree_logprob_{scale}")
        single = tree_score([energy], [count], energy.shape, rule="upstream")
        log_probability = -single - np.float32(log10_tests((energy.size,)))
        inside = ~np.isnan(upstream)
        tolerance = 4e-5 * np.maximum(1, np.abs(upstream)) + 1e-3  # 1e-3: adding and removing 2,400 tests in float32
        assert (np.abs(log_probability - upstream) <= tolerance)[inside].all()
        assert (np.abs(log_probability) <= 1e-3)[~inside].all()


@pytest.mark.parametrize("case", SYNTHETIC + PHOTOGRAPHED)
def test_block_score_is_upstreams_where_that_is_finite(case: str) -> None:
    exceedances, channels = maps(case, "exceed")
    score = block_score(exceedances, channels, (256, 256))
    upstream = expected(case, "block_score_256")
    finite = np.isfinite(upstream)
    assert finite.any()
    np.testing.assert_allclose(score[finite], upstream[finite], atol=1e-4, rtol=0)
    assert np.isfinite(score).all()


@pytest.mark.parametrize("case", PHOTOGRAPHED)
def test_likelihood_map_is_upstreams(case: str) -> None:
    energies, channels = maps(case, "energy")
    np.testing.assert_allclose(
        likelihood_map(energies, channels, (256, 256)), expected(case, "likelihood_256"), atol=2e-6
    )


@pytest.mark.parametrize("case", SYNTHETIC)
def test_number_of_tests_is_upstreams(case: str) -> None:
    energies, _ = maps(case, "energy")
    assert log10_tests(tuple(e.size for e in energies)) == pytest.approx(
        float(expected(case, "log10_ntests")), rel=1e-7
    )

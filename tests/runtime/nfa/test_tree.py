"""The tree score against a literal, slow reading of the paper, and in the face of awkward maps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from skimage.measure import label

from uflow_edge.runtime.nfa import tree_score
from uflow_edge.runtime.nfa.counts import POLYOMINO_ALPHA, POLYOMINO_BETA, log10_tests
from uflow_edge.runtime.nfa.tree import TREE_RULES, TreeRule


def literal_regions(energy: np.ndarray, channels: int, rule: str, scales: int = 1) -> dict[frozenset[int], float]:
    """Prune and merge in alternation until nothing changes, on sets of pixels, straight from the definitions."""
    level = (energy / np.float32(channels)).ravel()
    pixels = level.size

    def value(component: frozenset[int]) -> float:
        x, n = min(level[p] for p in component), len(component)
        log_p = (
            0.0 if rule != "upstream" and x <= 1 else -n * channels / 2 * (float(x) - 1 - float(np.log(x))) / np.log(10)
        )
        if rule != "per_size":
            return log_p
        log_regions = np.log10(pixels * POLYOMINO_ALPHA / n) + n * np.log10(POLYOMINO_BETA)
        return float(np.log10(scales) + np.log10(pixels) + log_regions + log_p)

    nodes: set[frozenset[int]] = set()
    for threshold in np.unique(level):
        labels = label((level >= threshold).reshape(energy.shape), connectivity=1).ravel()
        nodes |= {frozenset(np.flatnonzero(labels == i).tolist()) for i in range(1, labels.max() + 1)}
    values = {node: value(node) for node in nodes}

    def children(node: frozenset[int]) -> list[frozenset[int]]:
        below = [other for other in nodes if other < node]
        return [n for n in below if not any(n < other for other in below)]

    changed = True
    while changed:
        changed = False
        for leaf in [node for node in nodes if not children(node)]:
            branch, top = [leaf], leaf
            while True:
                above = [n for n in nodes if top < n]
                if not above:
                    break
                top = min(above, key=len)
                if len(children(top)) > 1:
                    break
                branch.append(top)
            best = min(branch, key=lambda node: (values[node], len(node)))
            nodes -= set(branch) - {best}
            changed |= len(branch) > 1
        for node in sorted(nodes, key=len):
            below = children(node)
            if len(below) > 1 and not any(children(n) for n in below) and values[node] <= min(values[n] for n in below):
                nodes -= set(below)
                changed = True
    return {node: values[node] for node in nodes if not children(node)}


def small_maps(min_value: float = 0.5) -> st.SearchStrategy[np.ndarray]:
    levels = st.sampled_from([min_value, 4.0, 7.5, 8.0, 9.0, 12.0, 30.0, 31.0])
    return arrays.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=levels)


@pytest.mark.parametrize("rule", ["one_sided", "per_size"])
@settings(max_examples=60, deadline=None)
@given(energy=small_maps())
def test_score_is_that_of_the_literal_reading(rule: str, energy: np.ndarray) -> None:
    regions = literal_regions(energy, 8, rule)
    outside = 0.0
    if rule == "per_size":
        outside = float(np.log10(energy.size) + np.log10(energy.size * POLYOMINO_ALPHA * POLYOMINO_BETA))
    log_value = np.full(energy.size, outside)
    for region, value in regions.items():
        log_value[list(region)] = value
    tests = 0.0 if rule == "per_size" else log10_tests((energy.size,))
    score = tree_score([energy], [8], energy.shape, rule=rule)
    np.testing.assert_allclose(score.ravel(), -log_value - tests, rtol=1e-5, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(energy=small_maps())
def test_upstream_rule_is_the_literal_reading_with_one_region_a_value(energy: np.ndarray) -> None:
    log_values = literal_regions(energy, 8, "upstream").values()
    score = tree_score([energy], [8], energy.shape, rule="upstream")
    best = -min(log_values) - log10_tests((energy.size,))
    assert score.max() == pytest.approx(max(best, -log10_tests((energy.size,))), rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("rule", TREE_RULES)
def test_calm_latents(rule: str) -> None:
    """Calmer than the null model is anomalous for upstream alone, which applies the bound where it does not hold."""
    energy = np.random.default_rng(0).chisquare(84, (64, 64)).astype(np.float32) * 0.5
    score = tree_score([energy], [84], (64, 64), rule=rule)
    assert (score.max() > 0) == (rule == "upstream")


@pytest.mark.parametrize("rule", TREE_RULES)
def test_a_planted_square_is_found_where_it_is(rule: str) -> None:
    energy = np.random.default_rng(1).chisquare(84, (32, 32)).astype(np.float32)
    energy[10:20, 5:15] = 84 * 4 + np.arange(100).reshape(10, 10)
    score = tree_score([energy], [84], (32, 32), rule=rule)
    planted = np.zeros((32, 32), bool)
    planted[10:20, 5:15] = True
    assert (score > 0)[planted].all()
    assert (score > 0).sum() <= 1.2 * planted.sum()


def test_per_size_finds_a_single_pixel_that_the_other_rules_drown() -> None:
    energy = np.random.default_rng(2).chisquare(84, (64, 64)).astype(np.float32)
    energy[40, 7] = 84 * 4
    scores = {rule: tree_score([energy], [84], (64, 64), rule=rule) for rule in ("per_size", "one_sided")}
    assert np.argwhere(scores["per_size"] > 0).tolist() == [[40, 7]]
    assert scores["one_sided"].max() < 0


@pytest.mark.parametrize("rule", TREE_RULES)
def test_no_false_alarm_on_a_hundred_images_of_the_null_model(rule: str) -> None:
    """On independent N(0, 1) latents one an image is the theory's bound; none in 1,500 images was found."""
    for seed in range(100):
        random = np.random.default_rng(seed)
        energies = [random.chisquare(c, (s, s)).astype(np.float32) for c, s in ((84, 32), (80, 16))]
        assert tree_score(energies, [84, 80], (32, 32), rule=rule).max() < 0


@pytest.mark.parametrize("rule", TREE_RULES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (7, 13)])
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (64, 48)])
def test_any_shape_and_target(rule: str, shape: tuple[int, int], size: tuple[int, int]) -> None:
    energy = np.random.default_rng(3).chisquare(20, shape)
    score = tree_score([energy], [20], size, rule=rule)
    assert score.shape == size
    assert score.dtype == np.float32
    assert np.isfinite(score).all()


@pytest.mark.parametrize("rule", TREE_RULES)
@pytest.mark.parametrize("energy", [0.0, 1e-30, 20.0, 1e30])
def test_constant_maps(rule: str, energy: float) -> None:
    score = tree_score([np.full((8, 8), energy)], [20], (8, 8), rule=rule)
    assert np.isfinite(score).all()
    assert (score == score[0, 0]).all()


@pytest.mark.parametrize("rule", TREE_RULES)
def test_input_is_left_alone_and_precision_does_not_matter(rule: str) -> None:
    energy = np.random.default_rng(4).chisquare(20, (16, 16)).astype(np.float32)
    before = energy.copy()
    score = tree_score([energy], [20], (16, 16), rule=rule)
    np.testing.assert_array_equal(energy, before)
    np.testing.assert_array_equal(tree_score([energy.astype(np.float64)], [20], (16, 16), rule=rule), score)
    np.testing.assert_array_equal(tree_score([energy.T.copy().T], [20], (16, 16), rule=rule), score)


def test_negative_zero_is_zero() -> None:
    energy = np.full((4, 4), 40.0, np.float32)
    energy[0, 0] = -0.0
    other = np.abs(energy)
    np.testing.assert_array_equal(tree_score([energy], [20], (4, 4)), tree_score([other], [20], (4, 4)))


@pytest.mark.parametrize(
    ("energies", "channels", "complaint"),
    [
        ([np.full((2, 2), np.nan)], [4], "energy map 0: expected finite values of 0 or more, got NaN in 4 of 4"),
        ([np.ones((2, 2)), np.full((2, 2), np.inf)], [4, 4], "energy map 1: .* infinity in 4 of 4"),
        ([np.full((2, 2), 1e300)], [4], "infinity"),
        ([np.full((2, 2), -1.0)], [4], "negative values in 4 of 4"),
        ([np.ones(4)], [4], r"expected \[H, W\]"),
        ([np.ones((0, 4))], [4], "at least one pixel"),
        ([np.ones((2, 2))], [0], "at least 1 channel"),
        ([np.ones((2, 2))], [4, 4], "as many energy maps as channel counts"),
        ([], [], "at least one"),
    ],
)
def test_maps_that_cannot_be_energies(energies: list[np.ndarray], channels: list[int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        tree_score(energies, channels, (4, 4))


def test_unknown_rule_and_size() -> None:
    with pytest.raises(ValueError, match="upstream, one_sided, per_size"):
        tree_score([np.ones((2, 2))], [4], (4, 4), rule="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1x1"):
        tree_score([np.ones((2, 2))], [4], (0, 4))


@settings(max_examples=60, deadline=None)
@given(
    energy=arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 8), st.integers(1, 8)),
        elements=st.one_of(st.floats(0, 200, width=32), st.floats(2**100, np.finfo(np.float32).max, width=32)),
    ),
    rule=st.sampled_from(TREE_RULES),
)
def test_energies_near_the_end_of_float32_are_the_most_anomalous(energy: np.ndarray, rule: TreeRule) -> None:
    energy[0, 0] = max(energy[0, 0], 2**100)
    score = tree_score([energy, np.full((2, 2), 20, np.float32)], [20, 20], (16, 16), rule=rule)
    assert np.isfinite(score).all()
    assert score.max() > 1e25

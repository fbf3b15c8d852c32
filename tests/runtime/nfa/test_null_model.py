"""The null model at run time: its law, how it weighs regions, and the file it comes from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from skimage.measure import label
from skimage.morphology import area_opening, local_maxima

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.nfa.chi_square import chi_square_log10_tail
from uflow_edge.runtime.nfa.component_tree import opening_maxima
from uflow_edge.runtime.nfa.counts import POLYOMINO_ALPHA, POLYOMINO_BETA, log10_tests_by_size
from uflow_edge.runtime.nfa.null_model import ImageGain, NullModel, NullScale, TailLaw


def law(shape: float = 0.2, degrees: float = 6.0, shift: float = 0.3) -> TailLaw:
    threshold = shift + 0.2 * stats.chi2.isf(0.02, degrees)
    return TailLaw(degrees, 0.2, shift, threshold, 0.02, shape, 0.5)


def null_scale(shape: tuple[int, int] = (16, 16), **changes: object) -> NullScale:
    parts = {
        "pixel_gain": np.full(shape, 40, np.float32),
        "image_gain": ImageGain(0.5, 0.8, 1.5),
        "tail": law(),
        "repeats": np.array([0.9, 1.2, 1.5]),
        "counts": np.array([1.5, 1.2, 0.8]),
    }
    return NullScale(**{**parts, **changes})  # type: ignore[arg-type]


def model() -> NullModel:
    return NullModel((null_scale(), null_scale((8, 8), image_gain=ImageGain(0.0, 1.0, 1.0))), 50)


@pytest.mark.parametrize("shape", [0.0, 0.2, 0.8])
def test_tail_is_a_gamma_law_up_to_the_threshold_and_a_pareto_law_beyond(shape: float) -> None:
    one = law(shape)
    body = np.linspace(0, one.threshold * 0.999, 400)
    beyond = np.geomspace(one.threshold, 1e6, 400)
    expected = stats.chi2.logsf(np.float32(body), one.degrees, one.shift, one.scale) / np.log(10)
    np.testing.assert_allclose(one.log10_tail(body), expected, atol=3e-4)
    pareto = stats.genpareto.logsf(np.float32(beyond) - one.threshold, shape, scale=one.spread) / np.log(10)
    np.testing.assert_allclose(one.log10_tail(beyond), np.log10(0.02) + pareto, rtol=1e-6)


@settings(max_examples=100, deadline=None)
@given(
    shape=st.floats(0, 0.9),
    degrees=st.floats(0.5, 1000),
    levels=arrays.arrays(np.float32, 50, elements=st.floats(0, 2**100, width=32)),
)
def test_tail_falls_everywhere_and_has_no_step_at_the_threshold(
    shape: float, degrees: float, levels: np.ndarray
) -> None:
    one = law(shape, degrees)
    tail = one.log10_tail(np.sort(levels))
    assert (np.diff(tail) <= 1e-12).all()
    assert tail[0] <= 0
    assert np.isfinite(tail).all()
    around = one.log10_tail(np.float32(one.threshold) * np.array([1 - 1e-6, 1 + 1e-6]))
    assert around[0] == pytest.approx(around[1], abs=1e-3)


@settings(max_examples=60, deadline=None)
@given(
    energy=arrays.arrays(
        np.float32, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.sampled_from([1.0, 2.0, 3.0, 5.0, 8.0])
    )
)
def test_opening_maxima_are_those_of_the_opened_maps(energy: np.ndarray) -> None:
    """An independent reading: open by area, then label the plateaus that are higher than all around them."""
    classes = energy.size.bit_length()
    levels, of_class = opening_maxima(energy.ravel(), energy.shape[1], classes)
    for j in range(classes):
        opened = area_opening(np.pad(energy, 1), 2**j, connectivity=1)[1:-1, 1:-1]
        # A pad of 0 keeps a map that is constant from having no maximum at all.
        peaks = label(local_maxima(np.pad(opened, 1, constant_values=-1.0), connectivity=1), connectivity=1)[1:-1, 1:-1]
        expected = [float(opened[peaks == i][0]) for i in range(1, peaks.max() + 1)]
        assert sorted(levels[of_class == j].tolist()) == sorted(expected)


def test_a_single_pixel_scores_what_the_formula_says() -> None:
    scale = null_scale()
    energy = np.full((16, 16), 40, np.float32)
    energy[3, 4] = 4000
    score = NullModel((scale,), 50).score([energy], (16, 16))
    log_tail = float(scale.tail.log10_tail(100.0))
    assert score[3, 4] == pytest.approx(-(np.log10(1 * 3) + 1.5 + 0.9 * log_tail), rel=1e-5)
    assert score.argmax() == 3 * 16 + 4


def test_a_larger_region_is_judged_by_its_class() -> None:
    scale = null_scale()
    energy = np.full((16, 16), 40, np.float32)
    energy[3:6, 4:6] = 400  # 6 pixels: class 4
    score = NullModel((scale, scale), 50).score([energy, np.full((16, 16), 40)], (16, 16))
    log_tail = float(scale.tail.log10_tail(10.0))
    assert score[4, 5] == pytest.approx(-(np.log10(2 * 3) + 0.8 + 1.5 * log_tail), rel=1e-5)


def test_the_independent_model_is_the_per_size_rule_written_in_this_form() -> None:
    """With a χ² body and polyomino counts, every region is worth what `per_size` says, but for how sizes are shared."""
    energy = np.full((16, 16), 40.0, np.float32)
    energy[7, 7] = 90
    tail = TailLaw(54, 1.0, 0.0, 200.0, 10 ** float(chi_square_log10_tail(200.0, 54)), 0.0, 1.0)
    counts = np.array([np.log10(256 * POLYOMINO_ALPHA * POLYOMINO_BETA)])
    scale = null_scale(
        tail=tail,
        pixel_gain=np.ones((16, 16), np.float32),
        image_gain=ImageGain(0, 1, 1),
        repeats=np.ones(1),
        counts=counts,
    )
    score = NullModel((scale,), 50).score([energy], (16, 16))
    per_size = log10_tests_by_size(256, 1)[1] + float(chi_square_log10_tail(90.0, 54))  # of the one bright pixel
    assert score[7, 7] - np.log10(256) == pytest.approx(-per_size, abs=1e-3)


def test_gains_are_divided_out_and_limited() -> None:
    random = np.random.default_rng(0)
    gain = random.uniform(20, 60, (16, 16)).astype(np.float32)
    scale = null_scale(pixel_gain=gain)
    np.testing.assert_allclose(scale.levels(gain), 1, rtol=1e-6)
    np.testing.assert_allclose(scale.levels(gain * np.float32(1.44)), 1.2, rtol=1e-5)  # exponent one half
    np.testing.assert_allclose(scale.levels(gain * np.float32(9)), 9 / 1.5**0.5, rtol=1e-5)  # beyond good images


@pytest.mark.parametrize("energy", [0.0, 1e-30, 1e30, 3e38])
def test_constant_maps_of_any_size_have_a_finite_score(energy: float) -> None:
    tiny_gain = np.full((16, 16), 1e-3, np.float32)
    for scale in (null_scale(), null_scale(pixel_gain=tiny_gain)):
        score = NullModel((scale,), 50).score([np.full((16, 16), energy)], (20, 30))
        assert score.shape == (20, 30)
        assert np.isfinite(score).all()


def test_maps_that_were_not_calibrated() -> None:
    with pytest.raises(ValueError, match=r"calibrated on energy maps of \[\(16, 16\), \(8, 8\)\], got \[\(16, 16\)\]"):
        model().score([np.ones((16, 16))], (16, 16))
    with pytest.raises(ValueError, match="calibrate again"):
        model().score([np.ones((16, 16)), np.ones((9, 8))], (16, 16))
    with pytest.raises(ValueError, match="NaN"):
        model().score([np.ones((16, 16)), np.full((8, 8), np.nan)], (16, 16))


def test_what_is_saved_scores_the_same_when_loaded(tmp_path: Path) -> None:
    path = tmp_path / "null_model.npz"
    model().save(path)
    loaded = NullModel.load(path)
    energies = [np.random.default_rng(1).chisquare(40, (s, s)).astype(np.float32) for s in (16, 8)]
    np.testing.assert_array_equal(loaded.score(energies, (32, 32)), model().score(energies, (32, 32)))
    assert loaded.good_images == 50
    assert [p.name for p in tmp_path.iterdir()] == ["null_model.npz"]


def test_an_interrupted_save_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "null_model.npz"
    model().save(path)
    before = path.read_bytes()

    def interrupted(file: object, **arrays: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model().save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["null_model.npz"]


def damage(path: Path, **changes: object) -> None:
    with np.load(path) as stored:
        values = dict(stored)
    for name, value in changes.items():
        if value is None:
            del values[name]
        else:
            values[name] = np.asarray(value)
    np.savez(path, **values)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 99},
        {"scales": 0},
        {"scales": 3},
        {"pixel_gain_0": None},
        {"pixel_gain_0": np.zeros((16, 16), np.float32)},
        {"pixel_gain_0": np.ones((16, 16))},
        {"tail_1": [1.0, 2.0]},
        {"tail_1": [6.0, 0.2, 0.3, 3.0, 0.02, -0.1, 0.5]},
        {"tail_0": [np.nan] * 7},
        {"image_gain_0": [0.5, 2.0, 1.0]},
        {"repeats_0": [1.0, 0.5, 2.0]},
        {"repeats_0": [1.0]},
        {"repeats_0": [0.9, 1.2, 4.1]},
        {"counts_0": [np.nan, 1.0, 1.0]},
        {"counts_0": np.array([{}], dtype=object)},
    ],
)
def test_a_file_that_makes_no_null_model(tmp_path: Path, changes: dict[str, object]) -> None:
    path = tmp_path / "null_model.npz"
    model().save(path)
    damage(path, **changes)
    with pytest.raises(BadInput, match="null_model.npz: not a null model .*; calibrate the bundle again"):
        NullModel.load(path)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 not a zip", b"\x93NUMPY"])
def test_a_file_that_is_missing_or_something_else(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "null_model.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match="not a null model"):
        NullModel.load(path)


def test_laws_that_cannot_be() -> None:
    for changes in ({"degrees": 0.0}, {"shift": 99.0}, {"exceedance": 1.5}, {"spread": 0.0}, {"shape": np.inf}):
        with pytest.raises(ValueError, match="expected a distribution of levels"):
            replace(law(), **changes)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tail_0", [6, 0.2, -9.8e307, 3.0, 0.02, 0.2, 0.5]),
        ("tail_0", [6, 0.2, -1e6, 3.0, 0.02, 0.2, np.nan]),
        ("tail_0", [6, 1e-9, -1e6, 3.0, 0.02, 0.2, 0.5]),
        ("tail_0", [1e300, 0.2, 0.3, 3.0, 0.02, 0.2, 0.5]),
        ("tail_0", [6.0]),
        ("image_gain_0", [0.5, 1e-300, 1.5]),
        ("counts_0", [1e308, 1.2, 0.8]),
        ("counts_0", [np.nan, 1.2, 0.8]),
        ("repeats_0", [1.0, 1.2, 1e308]),
        ("repeats_0", [1.0, np.nan, 2.0]),
        ("pixel_gain_0", np.full((16, 16), np.inf, np.float32)),
        ("pixel_gain_0", np.full((16, 16), "a")),
        ("format", np.inf),
        ("format", 3),
        ("window", 2),
        ("window", 10**9),
        ("scales", 10**9),
        ("scales", 0),
        ("good_images", np.inf),
        ("good_images", -1),
    ],
)
def test_numbers_that_no_calibration_gives_are_refused(tmp_path: Path, name: str, value: object) -> None:
    """They would take for ever to compute, or turn into NaN."""
    model().save(tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz") as stored:
        arrays_ = {**stored, name: np.asarray(value)}
    np.savez_compressed(tmp_path / "model.npz", **arrays_)
    with pytest.raises(BadInput, match=r"model\.npz: not a null model"):
        NullModel.load(tmp_path / "model.npz")


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_law_that_is_taken_is_quick_and_finite(data: st.DataObject) -> None:
    wide = st.one_of(st.floats(1e-300, 1e6), st.floats(0.01, 10), st.floats(allow_nan=True))
    try:
        one = TailLaw(*(data.draw(wide) for _ in range(7)))
    except ValueError:
        return
    tail = one.log10_tail(np.float32([0, 1e-30, 1, one.threshold, 1e30, 3.4e38]))
    assert not np.isnan(tail).any()


@pytest.mark.parametrize("loud", [1e30, 1e37, 1e38, 3.4e38])
@pytest.mark.parametrize("shape", [0.0, 0.2])
def test_the_loudest_energies_are_the_most_anomalous(loud: float, shape: float) -> None:
    tested = NullModel((null_scale(tail=law(shape)), null_scale((8, 8))), 50)
    energies = [np.full((16, 16), 40, np.float32), np.full((8, 8), 40, np.float32)]
    energies[0][3:6, 4:8] = 4000
    ordinary = tested.score(energies, (64, 64)).max()
    energies[0][3:6, 4:8] = loud
    score = tested.score(energies, (64, 64))
    assert np.isfinite(score).all()
    assert score.max() > max(ordinary, 0)


def test_energies_are_averaged_over_the_window_before_regions_are_formed(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    energies = [random.chisquare(40, shape).astype(np.float32) for shape in ((16, 16), (8, 8))]
    padded = [np.pad(one, 1, mode="symmetric") for one in energies]
    means = [np.mean([p[i : i + n, j : j + n] for i in range(3) for j in range(3)], axis=0)
             for p, n in zip(padded, (16, 8), strict=True)]  # fmt: skip
    windowed = replace(model(), window=3)
    np.testing.assert_allclose(windowed.score(energies, (32, 32)), model().score(means, (32, 32)), rtol=1e-4, atol=1e-4)
    windowed.save(tmp_path / "null.npz")
    assert NullModel.load(tmp_path / "null.npz").window == 3
    with pytest.raises(ValueError, match="window 4: expected an odd number"):
        replace(model(), window=4)


def test_a_file_of_format_1_has_no_window(tmp_path: Path) -> None:
    model().save(tmp_path / "null.npz")
    with np.load(tmp_path / "null.npz") as file:
        stored = {name: file[name] for name in file.files if name != "window"}
    np.savez_compressed(tmp_path / "old.npz", **{**stored, "format": np.array(1)})
    assert NullModel.load(tmp_path / "old.npz").window == 1

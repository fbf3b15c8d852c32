import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uflow_edge.runtime.diffusion.schedule import NoiseSchedule
from uflow_edge.runtime.errors import UsageError

LINEAR = NoiseSchedule.make("linear")


def test_every_array_is_upstreams(arrays) -> None:
    theirs = arrays("schedule")
    guide = theirs.pop("guide_factor")
    del theirs["betas_linspace"]
    assert len(theirs) == 12
    for name, expected in theirs.items():
        np.testing.assert_allclose(getattr(LINEAR, name), expected, rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(LINEAR.sqrt_recipm1_alphas_cumprod, guide, rtol=1e-12)


def test_betas_are_what_is_left_of_a_line(arrays) -> None:
    np.testing.assert_allclose(LINEAR.betas, arrays("schedule")["betas_linspace"], rtol=1e-12)


def test_cosine_follows_its_formula_until_it_is_clipped() -> None:
    cosine = NoiseSchedule.make("cosine", 1000)
    left = np.cos((np.arange(1, 1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(
        cosine.alphas_cumprod[:-1], left[:-1] / np.cos(0.008 / 1.008 * np.pi / 2) ** 2, rtol=1e-9
    )
    assert cosine.betas[-1] == pytest.approx(0.999)


@settings(deadline=None)
@given(steps=st.integers(25, 1200), data=st.data(), name=st.sampled_from(["linear", "cosine"]))
def test_fewer_steps_lead_through_the_same_noise(steps: int, data: st.DataObject, name) -> None:
    whole = NoiseSchedule.make(name, steps)
    below = data.draw(st.integers(2, steps))
    count = data.draw(st.integers(2, below))
    part = whole.respaced(count, below)
    assert len(part) == count
    assert part.timesteps[0] == 0
    assert part.timesteps[-1] == below - 1
    assert np.unique(np.diff(part.timesteps)).size <= 2
    assert np.diff(part.timesteps).min() >= 1
    np.testing.assert_allclose(part.alphas_cumprod, whole.alphas_cumprod[part.timesteps], rtol=1e-9, atol=1e-15)
    assert np.isfinite(part.posterior_log_variance_clipped).all()


def test_guided_diffusions_own_spacing() -> None:
    # Its rule for one section, written out: strides of (1000 - 1) / (count - 1), each rounded.
    for count in (4, 25, 50, 250):
        at, expected = 0.0, []
        for _ in range(count):
            expected.append(round(at))
            at += 999 / (count - 1)
        assert LINEAR.respaced(count).timesteps.tolist() == expected


def test_all_steps_are_the_schedule_itself() -> None:
    np.testing.assert_allclose(LINEAR.respaced(1000).posterior_mean_coef1, LINEAR.posterior_mean_coef1, rtol=1e-9)
    np.testing.assert_array_equal(LINEAR.respaced(40, 40).timesteps, np.arange(40))


def test_a_single_step_is_the_noisiest() -> None:
    one = LINEAR.respaced(1, 40)
    assert one.timesteps.tolist() == [39]
    assert one.posterior_mean_coef1[0] == 1
    assert one.posterior_log_variance_clipped[0] == pytest.approx(one.log_betas[0])


def test_respacing_twice_still_names_the_networks_steps() -> None:
    assert LINEAR.respaced(100).respaced(10).timesteps[-1] == 999


def test_arrays_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        LINEAR.betas[0] = 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: NoiseSchedule.make("quadratic"),
        lambda: NoiseSchedule.make("linear", 0),
        lambda: NoiseSchedule.make("linear", 20),
        lambda: LINEAR.respaced(0),
        lambda: LINEAR.respaced(41, 40),
        lambda: LINEAR.respaced(5, 1001),
    ],
    ids=["unknown", "no steps", "too few steps", "none kept", "more than there are", "beyond the end"],
)
def test_what_cannot_be_meant_is_refused(make) -> None:
    with pytest.raises(UsageError):
        make()

"""Joint features: one map at the coarsest stride, standardised before it is normalised, and whitened across scales."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from uflow_edge.export.network.architecture import Architecture, Scale
from uflow_edge.export.network.joint import JointExtractor
from uflow_edge.export.network.lowered_network import lower
from uflow_edge.export.network.uflow import UFlow
from uflow_edge.runtime.errors import BadInput

JOINT = replace(Architecture.default("efficientnet_lite0", 64), joint=True, window=3)


@pytest.fixture(scope="module")
def network() -> UFlow:
    torch.manual_seed(2)
    network = UFlow(JOINT).eval().requires_grad_(False)
    assert isinstance(network.feature_extractor, JointExtractor)
    for affine in (*network.feature_extractor.tap_affines, network.feature_extractor.joint_affine):
        for values in affine.parameters():
            values.add_(0.1 * torch.randn_like(values))
    network.set_whitening([torch.eye(152) + 0.1 * torch.randn(16, 152, 152) / 152**0.5])
    return network


def test_all_channels_are_one_scale_at_the_coarsest_stride() -> None:
    assert JOINT.features == JOINT.latents == (Scale(16, 152, 4),)
    assert [scale.channels for scale in JOINT.tapped] == [40, 112]
    assert Architecture.from_hyper_parameters(JOINT.hyper_parameters()) == JOINT
    assert JOINT.whitening_bytes == 4 * 16 * 152**2


def test_features_are_standardised_then_normalised_then_averaged_down(network: UFlow) -> None:
    extractor = network.feature_extractor
    tapped = extractor.tapped(torch.randn(2, 3, 64, 64))
    (joint,) = extractor.prepare(tapped)
    assert joint.shape == (2, 152, 4, 4)
    for channels, side, feature, affine in (
        (slice(0, 40), 2, tapped[0], extractor.tap_affines[0]),
        (slice(40, 152), 1, tapped[1], extractor.tap_affines[1]),
    ):
        scores = (feature * affine.weight + affine.bias).double().numpy()
        scores -= scores.mean(axis=(1, 2, 3), keepdims=True)
        scores /= scores.std(axis=(1, 2, 3), keepdims=True)
        y, x = 1, 2  # inside the map: the mean over its side x side pixels of the means over 3 x 3 around each
        window = np.zeros((2, scores.shape[1]))
        for row in range(side * y, side * y + side):
            for column in range(side * x, side * x + side):
                window += scores[:, :, row - 1 : row + 2, column - 1 : column + 2].mean(axis=(2, 3)) / side**2
        np.testing.assert_allclose(joint[:, channels, y, x], window, atol=1e-4)


def test_the_lowered_network_gives_the_same_energies(network: UFlow) -> None:
    image = torch.randn(2, 3, 64, 64)
    expected, found = (float_energy(z) for z in (network(image), lower(network)(image)))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    plain = UFlow(JOINT).eval().requires_grad_(False)  # without whitening
    torch.testing.assert_close(float_energy(lower(plain)(image)), float_energy(plain(image)), rtol=1e-5, atol=0)


def float_energy(latents: tuple[torch.Tensor, ...]) -> torch.Tensor:
    (z,) = latents
    return z.square().sum(dim=1)


def test_windows_and_extractors_that_cannot_be_are_refused() -> None:
    for window in (0, 2, 5):  # a map has four pixels a side
        with pytest.raises(BadInput, match=f"window {window}: expected an odd side of at most 4"):
            replace(JOINT, window=window)
    with pytest.raises(BadInput, match="mcait has no joint features"):
        replace(Architecture.default("mcait", 448), joint=True)

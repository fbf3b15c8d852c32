"""Shapes that follow from a handful of numbers."""

from dataclasses import replace
from typing import Any

import pytest

from uflow_edge.export.network.architecture import Architecture, Coupling
from uflow_edge.runtime.errors import BadInput


@pytest.mark.parametrize(
    ("extractor", "size", "latents"),
    [
        ("resnet18", 256, [(4, 84, 64), (8, 80, 32), (16, 128, 16)]),
        ("wide_resnet50_2", 448, [(4, 336, 112), (8, 320, 56), (16, 512, 28)]),
    ],
)
def test_latents_are_upstreams(extractor: str, size: int, latents: list[tuple[int, int, int]]) -> None:
    architecture = Architecture.default(extractor, size)
    assert [(s.stride, s.channels, s.side) for s in architecture.latents] == latents


@pytest.mark.parametrize("extractor", ["resnet18", "wide_resnet50_2", "efficientnet_lite0"])
def test_the_flow_keeps_every_dimension(extractor: str) -> None:
    architecture = Architecture.default(extractor, 256)
    sizes = [sum(s.channels * s.side**2 for s in scales) for scales in (architecture.features, architecture.latents)]
    assert sizes[0] == sizes[1]


def leaves(value: Any) -> list[Any]:
    children = value.values() if type(value) is dict else value if type(value) is list else None
    return [value] if children is None else [leaf for child in children for leaf in leaves(child)]


def test_hyper_parameters_are_plain_and_come_back() -> None:
    default = Architecture.default("efficientnet_lite0", 320, 6)
    for architecture in (default, replace(default, coupling=Coupling("clamp_tanh_ratio", 1.5, 0.5, "soft"))):
        values = architecture.hyper_parameters()
        assert all(type(value) in (int, float, str, bool) for value in leaves(values))
        assert Architecture.from_hyper_parameters(values) == architecture


def test_hyper_parameters_from_before_couplings_varied() -> None:
    architecture = Architecture.default("resnet18")
    values = architecture.hyper_parameters()
    del values["coupling"]
    assert Architecture.from_hyper_parameters(values) == architecture


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"extractor": "vgg"}, "unknown extractor 'vgg'; known: resnet18"),
        ({"input_size": 250}, "a multiple of 16"),
        ({"input_size": 0}, "a multiple of 16"),
        ({"flow_steps": 0}, "at least 1"),
        ({"taps": [1, 3]}, "consecutive"),
        ({"taps": []}, "consecutive"),
        ({"taps": [4, 5]}, "feature levels 0 to 4"),
        ({"taps": [-1, 0]}, "feature levels 0 to 4"),
        ({"pooling": 2}, "odd"),
        ({"coupling": {"formula": "tanh"}}, "formula 'tanh'"),
        ({"coupling": {"permutation": "none"}}, "permutation 'none'"),
        ({"coupling": {"clamp": 0.0}}, "expected above 0"),
        ({"coupling": {"clamps": 1.0}}, "do not describe a U-Flow"),
        ({"input_size": "wide"}, "do not describe a U-Flow"),
    ],
)
def test_what_does_not_fit_together(changes: dict[str, object], complaint: str) -> None:
    values = Architecture.default("efficientnet_lite0").hyper_parameters() | changes
    with pytest.raises(BadInput, match=complaint):
        Architecture.from_hyper_parameters(values)

"""Shapes that follow from a handful of numbers."""

import pytest

from uflow_edge.export.architecture import Architecture
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


def test_hyper_parameters_are_plain_and_come_back() -> None:
    architecture = Architecture.default("efficientnet_lite0", 320, 6)
    values = architecture.hyper_parameters()
    assert all(type(value) in (int, str, list, bool) for value in values.values())
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
        ({"pooling": 2}, "odd"),
        ({"input_size": "wide"}, "do not describe a U-Flow"),
    ],
)
def test_what_does_not_fit_together(changes: dict[str, object], complaint: str) -> None:
    values = Architecture.default("efficientnet_lite0").hyper_parameters() | changes
    with pytest.raises(BadInput, match=complaint):
        Architecture.from_hyper_parameters(values)

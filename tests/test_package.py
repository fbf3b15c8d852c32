"""The package as tools and users see it."""

from importlib.metadata import version
from pathlib import Path

import pytest

import uflow_edge


def test_the_package_says_its_version_and_brings_the_inspector() -> None:
    from uflow_edge.runtime.inspector import Inspector

    assert uflow_edge.__version__ == version("uflow-edge")
    assert uflow_edge.Inspector is Inspector
    with pytest.raises(AttributeError, match="Outspector"):
        _ = uflow_edge.Outspector


def test_every_room_is_linked_into_the_package() -> None:
    package = Path(uflow_edge.__file__).parent
    repository = Path(__file__).parents[1]
    for room in ("benchmarks", "calibration", "export", "runtime", "training"):
        assert (package / room).resolve() == repository / room

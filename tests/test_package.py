"""The package as tools and users see it."""

import re
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


def test_no_room_imports_a_study() -> None:
    repository = Path(__file__).parents[1]
    studies = repository / "benchmarks" / "studies"
    rooms = ("benchmarks", "calibration", "export", "runtime", "training")
    files = [file for room in rooms for file in (repository / room).rglob("*.py") if studies not in file.parents]
    assert len(files) > 100
    importing = [file for file in files if re.search(r"benchmarks(\.| import )studies", file.read_text("utf-8"))]
    assert importing == []

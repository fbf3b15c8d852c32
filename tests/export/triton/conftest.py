"""A bundle that tests may change, and the repository written from it."""

import shutil
from pathlib import Path

import pytest

from uflow_edge.export.triton.repository import write_repository
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Bundle[UFlowManifest]:
    """A copy of a real bundle."""
    shutil.copytree(exported, tmp_path / "gravel.uflow")
    return Bundle.load(tmp_path / "gravel.uflow", UFlowManifest)


@pytest.fixture
def repository(bundle: Bundle[UFlowManifest], tmp_path: Path) -> Path:
    write_repository(bundle, tmp_path / "models")
    return tmp_path / "models"

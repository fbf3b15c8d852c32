"""What the tests of engines run on: a real bundle, and images of its size."""

from pathlib import Path

import numpy as np
import pytest

from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.numeric import Image


@pytest.fixture(scope="module")
def bundle(exported: Path) -> Bundle:
    return Bundle.load(exported, UFlowManifest)


@pytest.fixture
def images(bundle: Bundle) -> Image:
    side = bundle.manifest.input_size
    return np.random.default_rng(5).integers(0, 256, (3, side, side, 3), np.uint8)

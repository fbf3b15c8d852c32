"""Packages that only an extra installs: a test is skipped without them, but not in `make test`, which requires all."""

import os
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest

REQUIRED = bool(os.environ.get("UFLOW_EDGE_REQUIRE_EXTRAS"))


def extra(module: str) -> Any:
    """Import it, or skip the tests of a module or a fixture."""
    return import_module(module) if REQUIRED else pytest.importorskip(module, exc_type=ImportError)


def needs(package: str) -> pytest.MarkDecorator:
    """Mark a test that needs a package."""
    return pytest.mark.skipif(not REQUIRED and find_spec(package) is None, reason=f"{package} is not installed")

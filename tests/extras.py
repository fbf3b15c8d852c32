"""Packages that only an extra installs."""

import os
from importlib import import_module
from typing import Any

import pytest


def extra(module: str) -> Any:
    """Import it; where it is not installed, skip the tests, or fail where `make test` has installed every extra."""
    if os.environ.get("UFLOW_EDGE_REQUIRE_EXTRAS"):
        return import_module(module)
    return pytest.importorskip(module, exc_type=ImportError)

"""Packages that are missing or damaged."""

from pathlib import Path

import pytest

from uflow_edge.runtime.errors import MissingDependency, require


@pytest.mark.parametrize(
    ("source", "expected", "told"),
    [
        ("import uflow_absent", MissingDependency, r"uflow_absent is not installed.*pip install '\.\[x\]'"),
        ("raise ImportError('libx.so: not found')", MissingDependency, "is installed, but cannot be loaded: libx.so"),
        ("raise KeyboardInterrupt", KeyboardInterrupt, None),
        ("try:\n    raise KeyboardInterrupt\nexcept KeyboardInterrupt:\n    raise ImportError('initialization failed')",
         KeyboardInterrupt, None),
    ],
)  # fmt: skip
def test_what_keeps_a_package_from_being_loaded(
    tmp_path: Path, monkeypatch, source: str, expected: type[BaseException], told: str | None
) -> None:
    (tmp_path / "uflow_needed_module.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(expected, match=told):
        require("uflow_needed_module", "x")

"""Compiled functions: a cache on disk that is absent or damaged costs time, never the run."""

import importlib.util
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from numba.core.caching import CompileResultCacheImpl

SOURCE = """
from uflow_edge.runtime.compiled import compiled

@compiled
def half(x):
    return x / 2
"""


@pytest.fixture
def start(tmp_path: Path) -> Callable[[], Any]:
    """Gives the function as a new process would find it; its cache lies in tmp_path/__pycache__."""
    file = tmp_path / "one_function.py"
    file.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("one_function", file)

    def load() -> Any:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.half

    return load


def hits(function: Any) -> int:
    return sum(function.dispatcher.stats.cache_hits.values())


def test_a_second_start_loads_what_the_first_compiled(start) -> None:
    assert start()(3.0) == 1.5
    again = start()
    assert again(3.0) == 1.5
    assert hits(again) == 1


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("left", [0, 100, 300])
def test_a_damaged_cache_is_compiled_again_and_replaced(start, tmp_path: Path, suffix: str, left: int) -> None:
    start()(3.0)
    (file,) = (tmp_path / "__pycache__").glob(f"*half*{suffix}")
    file.write_bytes(file.read_bytes()[:left])
    mended, after = start(), start()
    assert mended(3.0) == 1.5
    assert after(3.0) == 1.5
    assert (hits(mended), hits(after)) == (0, 1)


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_cache_with_other_bytes_in_it_is_never_run(start, tmp_path: Path, suffix: str, part: float) -> None:
    start()(3.0)
    (file,) = (tmp_path / "__pycache__").glob(f"*half*{suffix}")
    content = bytearray(file.read_bytes())
    place = int(part * len(content))
    noise = random.Random(0).randbytes(64)[: len(content) - place]
    content[place : place + len(noise)] = noise
    file.write_bytes(content)
    mended, after = start(), start()
    assert mended(3.0) == 1.5
    assert after(3.0) == 1.5
    assert (hits(mended), hits(after)) == (0, 1)


def test_where_no_folder_can_be_written_it_compiles_at_each_start(start, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(CompileResultCacheImpl, "_locator_classes", [])
    assert start()(3.0) == 1.5
    assert not list(tmp_path.rglob("*.nb?"))


def test_a_cache_that_cannot_be_saved_is_done_without(start, tmp_path: Path) -> None:
    function = start()
    (tmp_path / "__pycache__").joinpath(
        function.dispatcher._cache._cache_file._index_name
    ).mkdir()  # where a file must go
    assert function(3.0) == 1.5

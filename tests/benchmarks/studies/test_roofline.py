from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from uflow_edge.benchmarks.studies.graph_work import Work
from uflow_edge.benchmarks.studies.roofline import Roof, RooflinePart, main, measure, resize_work, roofline_table
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest

ROOF = Roof(threads=2, macs_per_ms=1e8, bytes_per_ms=2e7)


def test_the_higher_limit_holds() -> None:
    dense, wide = Work("dense", 10**9, 10**6, 10**6), Work("wide", 10**6, 3 * 10**7, 10**7)
    assert (ROOF.attainable_ms(dense), ROOF.bound(dense)) == (10.0, "arithmetic")
    assert (ROOF.attainable_ms(wide), ROOF.bound(wide)) == (2.0, "memory")
    assert RooflinePart(dense, ROOF, took_ms=40.0).share == 0.25


def test_the_table_says_what_was_measured() -> None:
    table = roofline_table([RooflinePart(Work("flow", 10**9, 10**6, 10**6), ROOF, 40.0)])
    assert "| flow | 1.000 | 2.0 | 2 | 10.00 | arithmetic | 40.00 | 25% |" in table
    assert table.endswith("Measured limits: 2 threads: 100 GMAC/s, 20.0 GB/s.")


def test_resize_counted_by_hand() -> None:
    # Twice as many pixels: triangles over four, but at the edges, where one falls outside.
    work = resize_work((128, 64), 64)
    assert work.macs == 3 * 64 * (64 * 4 - 2)  # one axis only
    assert work.bytes == 3 * (128 * 64 + 64 * 64)
    assert resize_work((64, 64), 64).macs == 0


def test_a_bundle_under_its_roof(exported: Path) -> None:
    bundle = Bundle.load(exported, UFlowManifest)
    frame = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    measured = measure(bundle, [frame], threads=1, rounds=1)
    by_name = {one.work.name: one for one in measured}
    assert list(by_name) == ["resize", "extractor", "flow", "statistics", "engine", "NFA"]
    assert by_name["engine"].work.macs == sum(by_name[part].work.macs for part in ("extractor", "flow", "statistics"))
    assert all(one.took_ms > 0 and one.share > 0 for one in measured)
    assert by_name["NFA"].work == replace(by_name["NFA"].work, macs=0, weight_bytes=0)


def test_command(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--bundle", str(exported), "--rounds", "1", "--threads", "1"])
    printed = capsys.readouterr().out
    assert printed.startswith("| part | GMAC | MB | threads |")
    assert "\n| extractor | " in printed

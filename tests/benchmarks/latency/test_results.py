import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import pytest

from uflow_edge.benchmarks.latency.console import results_text
from uflow_edge.benchmarks.latency.machine import describe_machine
from uflow_edge.benchmarks.latency.report import report_page
from uflow_edge.benchmarks.latency.results import Results, Row, Workload, write_results
from uflow_edge.benchmarks.latency.stages import STAGES, TO_DEVICE, TO_HOST, TO_PICTURE, TO_VERDICT


def _row(name: str, seed: int, engine_ms: float, transfers: bool = False) -> Row:
    random = np.random.default_rng(seed)

    def samples(median: float, count: int = 40) -> tuple[float, ...]:
        return tuple(median * np.exp(random.normal(0, 0.05, count)))

    medians = dict(zip(STAGES, (0.1, 0.5, 1.0, engine_ms, 0.25, 2.0, 3.0), strict=True))
    if not transfers:
        medians = {stage: value for stage, value in medians.items() if stage not in (TO_DEVICE, TO_HOST)}
    return Row(
        name=name,
        engine=f"{name} 1.0, CPU",
        parity="within 1e-5",
        stages={
            **{stage: samples(median) for stage, median in medians.items()},
            TO_VERDICT: samples(3.1 + engine_ms),
            TO_PICTURE: samples(6.1 + engine_ms),
        },
        batches={1: samples(engine_ms), 4: samples(3.5 * engine_ms)},
        start_seconds=samples(1.5, 5),
        start_megabytes=samples(300, 5),
        device_bytes=None,
        joules_per_frame=None,
        anomalous=0.0,
    )


@pytest.fixture
def results() -> Callable[..., Results]:
    machine = describe_machine()
    unread = dict.fromkeys(("celsius", "gpu_mhz", "gpu_celsius"))

    def make(seed: int = 0, **engine_ms: float) -> Results:
        return Results(
            made="2026-11-25T10:00:00+00:00",
            bundle="bottle.uflow",
            against=None,
            machine=machine,
            workload=Workload("ab" * 32, "resnet18", 256, (640, 480), "seeded noise", None, "one_sided"),
            rows=tuple(_row(name, 10 * seed + i, ms) for i, (name, ms) in enumerate(engine_ms.items())),
            refused={},
            absent={"openvino fp32": "openvino <is> not installed"},
            throttling={"state": "steady", "evidence": ["CPU clock: not readable here"]},
            meter=None,
            rounds=tuple(
                {
                    **unread,
                    "ms": 20.0 + i % 3,
                    "cpu_mhz": 3000.0,
                }
                for i in range(40)
            ),
        )

    return make


def test_results_are_written_in_full(results, tmp_path):
    written = results(one=10)
    write_results(tmp_path / "a.json", written)
    told = json.loads((tmp_path / "a.json").read_text())
    assert told["schema"] == 3
    assert told["machine"] == asdict(written.machine)
    assert told["workload"] == {**asdict(written.workload), "frame": [640, 480]}
    np.testing.assert_allclose(told["rows"][0]["stages"]["engine"], written.rows[0].stages["engine"], atol=1e-4)
    assert list(told["rows"][0]["batches"]) == ["1", "4"]


def test_ratios_are_told_with_the_engine_they_are_compared_with(results):
    alone = results(**{"old fp32": 10.0})
    assert "compared with" not in results_text(alone) and "compared with" not in report_page(alone)
    new = replace(alone.rows[0], name="new fp32", against="old fp32", ratios={"engine": 0.5, "batch 4": 1.25})
    both = replace(alone, against="<old>.uflow", rows=(*alone.rows, new))
    assert re.search(r"compared with +engine +batch 4\nnew fp32 +old fp32 +0\.500 +1\.250\n", results_text(both))
    page = report_page(both)
    assert "<td>new fp32</td><td>old fp32</td><td>0.500</td><td>1.250</td>" in page
    assert "<title>Latency of bottle.uflow against &lt;old&gt;.uflow</title>" in page


def test_names_of_two_bundles_fit_beside_the_plots(results):
    page = report_page(results(**{"onnxruntime fp16": 10.0, "onnxruntime fp16 of /somewhere/else/<old>.uflow": 10.0}))
    labels = re.findall(r"<text class=\"name\" [^>]*>([^<]*)</text>", page)
    assert labels == ["onnxruntime fp16", "onnxruntime fp16", "of …where/else/&lt;old&gt;.uflow"] * 2


def test_transfers_are_told_where_there_are_any_and_are_none_elsewhere(results):
    on_cpu = results(cpu=10)
    both = replace(on_cpu, rows=(*on_cpu.rows, _row("gpu", 7, 2.0, transfers=True)))
    told = results_text(both)
    assert re.search(r"^cpu +[\d.]+ +none +[\d.]+ +[\d.]+ +none ", told, re.MULTILINE)
    assert re.search(r"^gpu( +[\d.]+){9}", told, re.MULTILINE)
    page = report_page(both)
    assert page.count('<td><span class="quiet">none</span></td>') == 2
    assert page.count(f"<td>{TO_DEVICE}</td>") == page.count(f"<td>{TO_HOST}</td>") == 1  # among the percentiles
    assert f"</i>{TO_DEVICE}</span>" in page  # in the key of the plot
    assert f"</i>{TO_DEVICE}</span>" not in report_page(on_cpu)


def test_the_page_gives_one_number_for_a_frame_and_says_when_and_on_what(results):
    on_cpu = results(cpu=10)
    uneven = {**on_cpu.rows[0].stages, TO_PICTURE: (33.49,) * 30}  # medians of stages need not add up
    told = replace(on_cpu, rows=(replace(on_cpu.rows[0], stages=uneven),))
    page = report_page(replace(told, throttling={"state": "too few rounds to tell", "evidence": []}))
    assert re.findall(r"<text class=\"name value\"[^>]*>([\d.]+)</text>", page) == ["33.49"]
    assert "2026-11-25 10:00 UTC" in page
    assert "Was the machine steady?" in page and "too few rounds to tell" in page
    assert "jetson" not in page and "power mode" not in page
    jetson = replace(on_cpu, machine=replace(on_cpu.machine, jetson="Orin"))
    assert "power mode" in report_page(jetson)


def test_the_page_is_one_file_and_says_what_cannot_be_read(results):
    page = report_page(replace(results(one=10, other=20), refused={"bad fp16": "it computes <something> else"}))
    assert page.count("<svg") >= 4
    assert not re.search(r"https?://|<script|<link|src=", page)
    assert "not readable here" in page
    assert "it computes &lt;something&gt; else" in page and "&lt;is&gt;" in page
    assert "nan" not in page.lower().replace("nanum", "")

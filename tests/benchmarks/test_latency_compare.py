import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from uflow_edge.benchmarks.latency.compare import compare
from uflow_edge.benchmarks.latency.console import comparison_text, results_text
from uflow_edge.benchmarks.latency.machine import describe_machine
from uflow_edge.benchmarks.latency.report import report_page
from uflow_edge.benchmarks.latency.results import Results, Row, Workload, read_results, write_results
from uflow_edge.benchmarks.latency.stages import STAGES, TO_DEVICE, TO_HOST, TO_PICTURE, TO_VERDICT
from uflow_edge.runtime.errors import BadInput


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

    def make(seed: int = 0, arithmetic: float = 2.0, memory: float = 12.0, **engine_ms: float) -> Results:
        return Results(
            made="2026-11-25T10:00:00+00:00",
            bundle="bottle.uflow",
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
                    "arithmetic_ms": arithmetic * (1 + i % 5 / 500),
                    "memory_ms": memory * (1 + i % 5 / 500),
                    "cpu_mhz": 3000.0,
                }
                for i in range(40)
            ),
        )

    return make


def test_every_row_gets_its_own_verdict(results):
    found = compare(results(1, slow=10, same=20), results(2, slow=15, same=20))
    verdicts = {(row.name, row.what): row.change.verdict for row in found.rows}
    assert verdicts["slow", "engine"] == verdicts["slow", "engine, batch 4"] == "slower"
    assert verdicts["slow", TO_VERDICT] == "slower"
    assert verdicts["slow", "nfa"] == "no difference that noise does not explain"
    assert {verdict for (name, _), verdict in verdicts.items() if name == "same"} == {
        "no difference that noise does not explain"
    }
    assert found.notes == ()
    assert re.search(r"slow +engine +.* 1\.[45]\d+ .* slower", comparison_text(found))


def test_a_few_microseconds_are_not_called(results):
    before = results(one=0.1)
    after = replace(before, rows=(replace(before.rows[0], stages={"engine": [0.13] * 40, "nfa": [4.0] * 40}),))
    before = replace(before, rows=(replace(before.rows[0], stages={"engine": [0.1] * 40, "nfa": [2.0] * 40}),))
    verdicts = {row.what: row.change.verdict for row in compare(before, after).rows}
    assert (verdicts["engine"], verdicts["nfa"]) == ("no difference that noise does not explain", "slower")


def test_results_survive_the_file(results, tmp_path):
    written = results(one=10)
    write_results(tmp_path / "a.json", written)
    read = read_results(tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())["schema"] == 2
    assert (read.machine, read.workload, read.absent) == (written.machine, written.workload, written.absent)
    np.testing.assert_allclose(read.rows[0].stages["engine"], written.rows[0].stages["engine"], atol=1e-4)
    assert list(read.rows[0].batches) == [1, 4]
    assert all(row.change.ratio == pytest.approx(1, abs=1e-3) for row in compare(written, read).rows)


def test_engines_in_one_run_only_are_named(results):
    notes = compare(results(old=10, both=10), results(both=10, new=10)).notes
    assert notes == ("old: only in the earlier run", "new: only in this run")


def test_another_machine_is_refused_unless_wanted(results):
    before = results(one=10)
    after = replace(results(one=10), machine=replace(before.machine, cpu="Another CPU", cores=99))
    with pytest.raises(BadInput, match=r"different machines: cpu: .* Another CPU now; cores: .* 99 now"):
        compare(before, after)
    notes = compare(before, after, other_machine=True).notes
    assert len(notes) == 2 and all(note.startswith("another machine: ") for note in notes)


def test_other_software_is_said_and_compared(results):
    before = results(one=10)
    after = replace(results(one=10), machine=replace(before.machine, python="3.99"))
    assert compare(before, after).notes == (f"python: {before.machine.python} then, 3.99 now",)


@pytest.mark.parametrize(
    ("field", "value"), [("frame", (1920, 1080)), ("checkpoint", "cd" * 32), ("threads", 1), ("rule", "per_size")]
)
def test_other_work_is_never_compared(results, field, value):
    before = results(one=10)
    after = replace(before, workload=replace(before.workload, **{field: value}))
    with pytest.raises(BadInput, match=f"different work.*{field}"):
        compare(before, after, other_machine=True)


def test_a_run_on_a_hot_machine_is_marked(results):
    after = replace(results(one=10), throttling={"state": "throttled", "evidence": []})
    assert compare(results(one=10), after).notes == ("the machine was not steady now: throttled",)


@pytest.mark.parametrize(("yardstick", "slower"), [("arithmetic", 3.0), ("memory", 18.0)])
def test_what_the_whole_machine_shared_is_not_put_on_the_engines(results, yardstick, slower):
    before, after = results(1, same=10, worse=10), results(2, **{yardstick: slower}, same=14, worse=30)
    found = compare(before, after)
    verdicts = {row.name: row.change.verdict for row in found.rows if row.what == "engine"}
    assert verdicts == {"same": "no more than the machine itself changed", "worse": "slower"}
    assert found.notes[0].startswith(f"the machine itself may have changed: its yardstick of {yardstick} took × 1.5")
    back = {row.name: row.change.verdict for row in compare(after, before).rows if row.what == "engine"}
    assert back == {"same": "no more than the machine itself changed", "worse": "faster"}


def test_what_the_yardsticks_cannot_rule_out_is_not_put_on_the_engines(results):
    before, after = results(1, one=10), results(2, one=14)
    assert {row.what: row.change.verdict for row in compare(before, after).rows}["engine"] == "slower"
    # Neighbours that came and went: the medians are the same, but may be so by chance.
    restless = [{**reading, "memory_ms": 12.0 if i // 5 % 2 else 24.0} for i, reading in enumerate(after.rounds)]
    found = compare(before, replace(after, rounds=tuple(restless)))
    assert {row.what: row.change.verdict for row in found.rows}["engine"] == "no more than the machine itself changed"
    assert found.notes[0].startswith("the machine itself may have changed: its yardstick of memory")


def _without_rows(told):
    del told["rows"]


def _zero_duration(told):
    told["rows"][0]["stages"]["nfa"][0] = 0


def _other_schema(told):
    told["schema"] = 99


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_rows, "damaged.*rows"),
        (_zero_duration, "not positive"),
        (_other_schema, "expected schema 2.*found 99"),
    ],
)
def test_damaged_files_are_refused(results, tmp_path, damage, message):
    path: Path = tmp_path / "a.json"
    write_results(path, results(one=10))
    told = json.loads(path.read_text())
    damage(told)
    path.write_text(json.dumps(told))
    with pytest.raises(BadInput, match=message):
        read_results(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", "\0"])
def test_files_of_others_are_refused(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(BadInput, match=r"a\.json: expected"):
        read_results(tmp_path / "a.json")
    with pytest.raises(BadInput, match=r"none\.json: expected"):
        read_results(tmp_path / "none.json")


def test_transfers_are_told_where_there_are_any_and_are_none_elsewhere(results, tmp_path):
    on_cpu = results(cpu=10)
    both = replace(on_cpu, rows=(*on_cpu.rows, _row("gpu", 7, 2.0, transfers=True)))
    write_results(tmp_path / "a.json", both)
    both = read_results(tmp_path / "a.json")
    told = results_text(both)
    assert re.search(r"^cpu +[\d.]+ +none +[\d.]+ +[\d.]+ +none ", told, re.MULTILINE)
    assert re.search(r"^gpu( +[\d.]+){9}", told, re.MULTILINE)
    page = report_page(both)
    assert page.count("<td><span class=quiet>none</span></td>") == 2
    assert page.count(f"<td>{TO_DEVICE}</td>") == page.count(f"<td>{TO_HOST}</td>") == 1  # among the percentiles
    assert f"</i>{TO_DEVICE}</span>" in page  # in the key of the plot
    assert f"</i>{TO_DEVICE}</span>" not in report_page(on_cpu)


def test_the_page_gives_one_number_for_a_frame_and_says_when_and_on_what(results):
    on_cpu = results(cpu=10)
    uneven = {**on_cpu.rows[0].stages, TO_PICTURE: (33.49,) * 30}  # medians of stages need not add up
    told = replace(on_cpu, rows=(replace(on_cpu.rows[0], stages=uneven),))
    page = report_page(replace(told, throttling={"state": "too few rounds to tell", "evidence": []}))
    assert re.findall(r"<text class=value[^>]*>([\d.]+)</text>", page) == ["33.49"]
    assert "2026-11-25 10:00 UTC" in page
    assert "Was the machine steady?" in page and "too few rounds to tell" in page
    assert "jetson" not in page and "power mode" not in page
    jetson = replace(on_cpu, machine=replace(on_cpu.machine, jetson="Orin"))
    assert "power mode" in report_page(jetson)


def test_the_page_is_one_file_and_says_what_cannot_be_read(results):
    before, after = results(1, one=10, other=20), results(2, one=15, other=20)
    page = report_page(replace(after, refused={"bad fp16": "it computes <something> else"}), compare(before, after))
    assert page.count("<svg") >= 4
    assert not re.search(r"https?://|<script|<link|src=", page)
    assert "not readable here" in page
    assert "it computes &lt;something&gt; else" in page and "&lt;is&gt;" in page
    assert "<span class=bad>slower</span>" in page
    assert "nan" not in page.lower().replace("nanum", "")

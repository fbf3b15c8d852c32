import subprocess
import sys
from pathlib import Path

from uflow_edge.runtime.report.page import render, write_page


def test_text_is_escaped_and_shares_one_look(tmp_path: Path) -> None:
    template = tmp_path / "own.html"
    template.write_text(
        '{% extends "base.html" %}{% import "macros.html" as kit %}'
        '{% block body %}{{ kit.table(["<a>"], [["<b>", -0.34]]) }}{{ kit.legend(-0.34) }}{% endblock %}'
    )
    page = render(template, title="<x>")
    assert "<title>&lt;x&gt;</title>" in page and "<th>&lt;a&gt;</th>" in page and "<td>&lt;b&gt;</td>" in page
    assert ">−0.3<" in page and "prefers-color-scheme: dark" in page
    assert "<script" not in page and "http" not in page


def test_names_that_are_no_utf_8_can_be_written(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", "Stra\udce4e")
    assert (tmp_path / "page.html").read_bytes() == b"Stra\\udce4e"


def test_jinja2_is_imported_only_when_a_report_is_written() -> None:
    code = (
        "import sys\n"
        "from uflow_edge.benchmarks.latency import command, console, run\n"
        "from uflow_edge.calibration import calibrate, command, saving\n"
        "from uflow_edge.runtime.infer import command\n"
        "from uflow_edge.runtime.purify import command, images\n"
        "from uflow_edge.training.evaluation import command, results\n"
        "sys.exit('jinja2' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

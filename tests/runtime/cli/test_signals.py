"""Signals end a command, at once or after the work in hand."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from uflow_edge.runtime.cli.interrupts import deferred_interrupts
from uflow_edge.runtime.errors import MissingDependency


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_signal_to_end_interrupts(main_of, number: signal.Signals, capsys) -> None:
    before = signal.getsignal(number)
    assert main_of(lambda: os.kill(os.getpid(), number)) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_ignored(main_of, monkeypatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        assert main_of(lambda: os.kill(os.getpid(), signal.SIGHUP)) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_error_that_an_interrupt_causes_is_an_interrupt(main_of, capsys) -> None:
    def importing() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:  # as native modules do
            raise MissingDependency("onnxruntime is not installed") from None

    assert main_of(importing) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_the_first_signal_may_be_deferred_and_the_second_may_not(main_of) -> None:
    asked: list[str] = []

    def work() -> None:
        with deferred_interrupts(lambda: asked.append("stop")) as interrupted:
            assert not interrupted()
            os.kill(os.getpid(), signal.SIGTERM)
            assert interrupted()
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("not reached")

    assert main_of(work) == 130
    assert asked == ["stop"]


def test_a_run_whose_engine_hangs_ends_by_a_signal(exported: Path, parts: Path) -> None:
    code = """
import os, signal, threading
from uflow_edge.runtime.line import stage
from uflow_edge.runtime.infer.command import main
from uflow_edge.runtime.inspector import Inspector

def hanging(self, prepared):
    if prepared.size == (96, 96):  # not that of the warm-up
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait()
    return infer(self, prepared)

infer, Inspector.infer, stage.HUNG_AT_THE_END = Inspector.infer, hanging, 0.1
main()
"""
    command = [sys.executable, "-c", code, str(parts / "plain.png"), "--bundle", str(exported)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 4
    assert f"error: engine has not returned; the run ends without a result for {parts / 'plain.png'} #0" in done.stderr
    assert "0 inspected" in done.stdout

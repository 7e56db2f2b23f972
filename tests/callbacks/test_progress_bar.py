"""Progress in a log: timed lines between evaluations, and a line for each evaluation."""

import sys
from types import SimpleNamespace

import pytest

from mlxlab.callbacks import progress_bar
from mlxlab.callbacks.progress_bar import ProgressBar
from mlxlab.training.state import NO_STEP
from support.models import fit, make_run, make_trainer
from support.pseudo_terminal import run_in_terminal


@pytest.fixture
def lines(caplog):
    caplog.set_level("INFO")
    return lambda: [
        record.getMessage() for record in caplog.records if record.name == progress_bar.__name__
    ]


def test_a_line_with_step_loss_speed_and_eta_is_logged_every_half_minute(lines, monkeypatch):
    seconds = iter([0, *range(100, 1000, 20)])  # each step but the first takes 20 seconds
    monkeypatch.setattr(progress_bar.time, "monotonic", lambda: next(seconds))
    run = make_run()
    run.state.total_steps = 100
    bar = ProgressBar("never")
    bar.on_start(run.context, run.state)
    for step in range(1, 5):
        run.state.progress.step = step
        run.context.log(run.state, {"train/loss": 0.25, "throughput/tokens_per_sec": 1500.0})
        bar.on_step(run.context, run.state, NO_STEP)
    # The first step was slow: it gets a line at once, and its time is no part of the estimate.
    assert [line.split()[1] for line in lines()] == ["1/100", "2/100", "4/100"]
    assert [line.partition("ETA ")[2] for line in lines()] == ["", "0:32:40", "0:32:00"]


def test_every_evaluation_gets_a_line(lines):
    fit(make_trainer(epochs=1), callbacks=[ProgressBar("off")])
    assert lines() == []
    fit(make_trainer(epochs=2), callbacks=[ProgressBar("never")])
    assert [line.split()[1] for line in lines()] == ["6/12", "12/12"]
    assert all("valid/loss" in line for line in lines())


def test_a_notebook_gets_a_bar(monkeypatch, capsys):
    kernel = SimpleNamespace(IPKernelApp=SimpleNamespace(initialized=lambda: True))
    monkeypatch.setitem(sys.modules, "ipykernel.kernelapp", kernel)
    fit(make_trainer(epochs=1), callbacks=[ProgressBar("auto")])
    assert "6/6" in capsys.readouterr().err


MESSAGES = """
import logging
from mlxlab.callbacks.progress_bar import ProgressBar
from mlxlab.terminal.messages import configure_logging
from support.models import make_run
configure_logging()
run, bar = make_run(), ProgressBar("auto")
run.state.total_steps = 40
bar.on_start(run.context, run.state)
logging.getLogger("mlxlab.terminal.messages").info("compiling the step ...")
logging.getLogger("mlxlab.terminal.messages").info("evaluation: batches: 1 of 2")
bar.on_end(run.context, run.state)
"""


def test_messages_have_lines_of_their_own_above_the_bar(tmp_path):
    (tmp_path / "messages.py").write_text(MESSAGES)
    screen = run_in_terminal([str(tmp_path / "messages.py")], 100)
    assert screen.code == 0, screen.text
    # What the last write of a line left.
    shown = [line.rpartition("\r")[2] for line in screen.text.split("\n")]
    assert "compiling the step ..." in shown
    assert "evaluation: batches: 1 of 2" in shown
    assert "0/40" in shown[-2], shown

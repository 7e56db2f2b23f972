"""Progress in a log: timed lines between evaluations, and a line for each evaluation."""

import fcntl
import os
import struct
import subprocess
import sys
import termios
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
    assert (
        lines()
        == [
            "step 1/100  train/loss 0.2500  1,500 tokens/s",  # at once: the first step was slow
            "step 2/100  train/loss 0.2500  1,500 tokens/s  ETA 0:32:40",  # without the time of the first
            "step 4/100  train/loss 0.2500  1,500 tokens/s  ETA 0:32:00",
        ]
    )


def test_a_value_of_an_earlier_step_is_marked(lines, monkeypatch):
    monkeypatch.setattr(progress_bar, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(progress_bar, "LINE_SECONDS", 0.0)
    run = make_run()
    bar = ProgressBar("never")
    bar.on_start(run.context, run.state)
    run.state.progress.step = 1
    run.context.log(run.state, {"valid/loss": 0.5, "valid/accuracy": 0.75})
    bar.on_step(run.context, run.state, NO_STEP)
    run.state.progress.step = 2
    run.context.log(run.state, {"train/loss": 0.25})
    bar.on_step(run.context, run.state, NO_STEP)
    values = [line.partition("  ")[2].partition("  ETA")[0] for line in lines()]
    assert values[0] == "valid/loss 0.5000  valid/accuracy 0.7500"
    assert (
        values[1] == "train/loss 0.2500  valid/loss 0.5000 (step 1)  valid/accuracy 0.7500 (step 1)"
    )


def test_every_evaluation_gets_a_line(lines):
    fit(make_trainer(epochs=2), callbacks=[ProgressBar("never")])
    assert [line.split()[1] for line in lines()] == ["6/12", "12/12"]
    assert all("valid/loss" in line for line in lines())


def test_steps_after_the_estimated_ones_are_marked_and_get_a_line_every_half_minute_too(
    lines, monkeypatch
):
    seconds = iter([0, *range(10, 1000, 10)])
    monkeypatch.setattr(progress_bar.time, "monotonic", lambda: next(seconds))
    run = make_run()
    run.state.total_steps = 2
    bar = ProgressBar("never")
    bar.on_start(run.context, run.state)
    for step in range(1, 12):
        run.state.progress.step = step
        bar.on_step(run.context, run.state, NO_STEP)
    assert [line.split()[1] for line in lines()] == ["1/2", "2/2", "5/~5", "8/~8", "11/~11"]


def test_off_logs_nothing(lines):
    fit(make_trainer(epochs=1), callbacks=[ProgressBar("off")])
    assert lines() == []


def test_a_notebook_gets_a_bar(monkeypatch, capsys):
    kernel = SimpleNamespace(IPKernelApp=SimpleNamespace(initialized=lambda: True))
    monkeypatch.setitem(sys.modules, "ipykernel.kernelapp", kernel)
    fit(make_trainer(epochs=1), callbacks=[ProgressBar("auto")])
    assert "6/6" in capsys.readouterr().err


def test_a_terminal_that_does_not_say_its_width_gets_a_bar():
    script = "import sys; from mlxlab.callbacks import progress_bar as p; print(p._width(), file=sys.stdout)"
    controller, terminal = os.openpty()  # 0 columns
    done = subprocess.run(
        [sys.executable, "-c", script], stderr=terminal, stdout=subprocess.PIPE, text=True
    )
    assert done.stdout.strip() == "{'ncols': 80}"
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    done = subprocess.run(
        [sys.executable, "-c", script], stderr=terminal, stdout=subprocess.PIPE, text=True
    )
    assert done.stdout.strip() == "{'dynamic_ncols': True}"
    os.close(controller)
    os.close(terminal)


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
    shown = [
        line.rpartition("\r")[2] for line in screen.text.split("\n")
    ]  # what the last write of a line left
    assert "compiling the step ..." in shown
    assert "evaluation: batches: 1 of 2" in shown
    assert "0/40" in shown[-2], shown

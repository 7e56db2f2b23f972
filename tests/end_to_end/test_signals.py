"""Signals, beyond what `test_resume` shows: SLURM, and what is left behind."""

import importlib
import os
import re
import signal
import stat
import sys
import time

import pytest
from omegaconf import ListConfig

from mlxlab.cli import train
from mlxlab.errors import RunInterrupted
from mlxlab.run import signals
from mlxlab.run.signals import CAUGHT, SignalHandler
from support.processes import TINY, final_state, run, start, succeed, tiny_overrides, wait_for


def test_signal_handlers_and_mask_are_restored():
    def state():
        handlers = [signal.getsignal(number) for number in CAUGHT]
        return handlers, signal.pthread_sigmask(signal.SIG_BLOCK, ())

    before, listener = state(), SignalHandler(requeue=False)
    listener.start()
    assert set(CAUGHT) <= state()[1]
    listener.stop()
    assert state() == before


def test_a_signal_after_the_last_step_lets_the_run_finish_its_report(tmp_path):
    settings = tiny_overrides("trainer.max_steps=2", "data.baselines=true")
    process = start(*settings, f"hydra.run.dir={tmp_path}")
    while not re.search(r'"final_state": "\w', read(tmp_path / "run.json")):  # training has ended
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert (tmp_path / "STATUS.finished").exists()
    assert "Improvement over TF-IDF + logistic regression" in out


def read(path):
    return path.read_text() if path.exists() else ""


def test_a_report_that_takes_long_after_a_signal_is_left_for_a_resume(monkeypatch, capsys):
    handler = SignalHandler(requeue=False)
    handler.may_finish_report = True
    handler._receive(signal.SIGTERM)
    assert (handler.stop_signal, handler.report_stop_signal) == (signal.SIGTERM, 0)
    monkeypatch.setattr(signals, "REPORT_SECONDS", 0.0)
    assert handler.report_stop_signal == signal.SIGTERM
    assert "SIGTERM: finishing the current step" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "requeued"),
    [("SIGTERM", True), pytest.param("SIGINT", False, marks=pytest.mark.slow)],
)
def test_slurm_jobs_are_requeued_depending_on_the_signal(tmp_path, name, requeued):
    stub = tmp_path / "bin" / "scontrol"  # stands for the command of SLURM
    stub.parent.mkdir()
    calls = tmp_path / "calls"
    stub.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
    path = f"{stub.parent}:{os.environ['PATH']}"
    settings = [*TINY, f"hydra.run.dir={tmp_path}/run", "signals.requeue=true"]
    process = start(*settings, PATH=path, SLURM_JOB_ID="4711")
    wait_for(tmp_path / "run" / "checkpoints" / "step-00000005", process)
    process.send_signal(getattr(signal, name))
    process.communicate(timeout=60)
    assert calls.exists() == requeued
    if requeued:
        assert calls.read_text() == "requeue 4711\n"


TO_PROCESS = "os.kill(os.getpid(), signal.SIGTERM)"
TO_MAIN_THREAD = "signal.getsignal(signal.SIGTERM)(signal.SIGTERM, sys._getframe())"


@pytest.mark.parametrize("send", [TO_PROCESS, TO_MAIN_THREAD])
def test_a_signal_during_an_import_is_raised_after_it(tmp_path, monkeypatch, send):
    """The C++ code of an extension that is being imported cannot pass an exception on: MLX aborts the process."""
    lines = ["import os, signal, sys, time", send, "time.sleep(0.1)", "finished = True"]
    (tmp_path / "half_imported.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "half_imported", raising=False)
    handler = SignalHandler(requeue=False)
    handler.ends_preparation = True
    handler.start()
    try:
        with pytest.raises(RunInterrupted), handler.as_run_interrupted():
            import_and_wait("half_imported")
    finally:
        handler.stop()
    assert sys.modules["half_imported"].finished


def import_and_wait(name):
    importlib.import_module(name)
    for _ in range(1000):
        time.sleep(0.01)


def test_ctrl_c_while_the_config_is_composed_is_not_lost(monkeypatch, capsys):
    """OmegaConf fails to clean up a list that was interrupted while it grew, and its error replaces the interrupt."""
    original, interrupts = ListConfig._set_item_impl, [KeyboardInterrupt]

    def set_item(self, index, item):
        if interrupts and self._get_flag("readonly") is False:
            raise interrupts.pop()
        original(self, index, item)

    monkeypatch.setattr(ListConfig, "_set_item_impl", set_item)
    assert train.main([*TINY, "--cfg", "job"]) == 130
    assert not interrupts
    assert capsys.readouterr().err == "interrupted\n"


SLOW_DATA = """
import time

class Slow:
    def __init__(self, source: str, *, seed, cache, pretrained, masked, one_document, width, parameters, folder,
                 restored, run_length) -> None:
        try:
            for _ in range(1200):
                time.sleep(0.05)
        except Exception as error:  # as code does that calls a stranger's library
            raise ValueError("malformed") from error
"""


@pytest.mark.parametrize(
    "name", ["SIGTERM", pytest.param("SIGINT", marks=pytest.mark.fault_injection)]
)
def test_a_signal_while_data_are_read_ends_the_run_at_once(tmp_path, name):
    (tmp_path / "slow_data.py").write_text(SLOW_DATA)
    environment = {"PYTHONPATH": str(tmp_path), "MLXLAB_ALLOWED_TARGETS": "slow_data.Slow"}
    (tmp_path / "conf" / "data").mkdir(parents=True)
    node = "_target_: slow_data.Slow\nsource: none\n"
    (tmp_path / "conf" / "data" / "slow.yaml").write_text(node)
    settings = [setting for setting in TINY if not setting.startswith("data.")]
    config = ["--config-dir", str(tmp_path / "conf"), "data=slow", f"hydra.run.dir={tmp_path}/run"]
    process = start(*config, *settings, fresh=True, **environment)
    while "reading the data ..." not in (line := process.stderr.readline()):  # after 3 seconds
        assert line, "ended"
    sent = time.monotonic()
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - sent < 20  # seconds of the interpreter's end, on a busy machine
    assert process.returncode == 128 + getattr(signal, name)
    assert "stopped before the first step; nothing was trained" in err
    assert "Traceback" not in err
    assert (tmp_path / "run" / "STATUS.interrupted").exists()


@pytest.mark.fault_injection
def test_a_stopped_sweep_resumes_its_job_from_the_checkpoint(tmp_path):
    """SIGTERM reaches the sweep, not its job, which is in a process group of its own."""
    # So many steps are not over when the signal comes, on a busy machine either.
    settings = tiny_overrides("trainer.max_steps=300", "callbacks.progress_bar.bar=off")
    command = ["-m", "seed=0,1", *settings, f"hydra.sweep.dir={tmp_path}"]
    process = start(*command)
    wait_for(tmp_path / "0" / "checkpoints" / "step-00000005", process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    assert "2 jobs: 2 unfinished" in out
    assert "Traceback" not in err
    assert list((tmp_path / "0" / "checkpoints").glob("*-emergency"))
    succeed(f"sweep.resume={tmp_path}", "trust_folder=true")
    printed = [(tmp_path / job / "output.log").read_text().splitlines() for job in ("0", "1")]
    states = [[line for line in lines if line.startswith("final_state=")] for lines in printed]
    uninterrupted = run(*settings, "seed=0", f"hydra.run.dir={tmp_path}/uninterrupted")
    assert states[0][-1] == final_state(uninterrupted)
    assert [len(each) for each in states] == [2, 1]  # of the stopped attempt and of the resumed one

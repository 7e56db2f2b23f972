"""Signals, beyond what `test_run_resume` shows: SLURM, and what is left behind."""

import os
import signal
import stat

import pytest

from mlxlab.experiment.signals import CAUGHT, SignalHandler
from support.processes import TINY, final_state, run, start, tiny_overrides, wait_for


def test_signal_handlers_and_mask_are_restored():
    before = [signal.getsignal(number) for number in CAUGHT], signal.pthread_sigmask(signal.SIG_BLOCK, ())
    listener = SignalHandler(requeue=False)
    listener.start()
    assert set(CAUGHT) <= signal.pthread_sigmask(signal.SIG_BLOCK, ())
    listener.stop()
    after = [signal.getsignal(number) for number in CAUGHT], signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert after == before


@pytest.mark.parametrize(("name", "requeued"), [("SIGTERM", True), ("SIGINT", False)])
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


def test_a_signal_stops_one_job_of_a_sweep_and_the_others_run(tmp_path):
    settings = tiny_overrides("trainer.max_steps=30", "callbacks.progress_bar.bar=off")
    process = start("-m", "seed=0,1,2", *settings, f"hydra.sweep.dir={tmp_path}")
    wait_for(tmp_path / "1" / "checkpoints" / "step-00000005", process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    assert out.count("final_state=") == 3
    assert "job 1 (seed=1" in err
    assert "1 of 3 jobs failed: 1" in err
    assert "Traceback" not in err
    ends = [max(path.name for path in (tmp_path / str(job) / "checkpoints").iterdir()) for job in range(3)]
    assert (ends[0], ends[2]) == ("step-00000030", "step-00000030")
    assert ends[1].endswith("-emergency")
    again = run(*settings, "seed=1", f"hydra.run.dir={tmp_path}/1", "resume=auto")
    assert final_state(again) == final_state(run(*settings, "seed=1", f"hydra.run.dir={tmp_path}/uninterrupted"))

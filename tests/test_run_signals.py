"""Signals, beyond what `test_run_resume` shows: SLURM, and what is left behind."""

import os
import signal
import stat

import pytest

from mlxlab.callbacks.signals import CAUGHT, Listener
from processes import TINY, start, wait_for


def test_handlers_and_mask_are_put_back():
    before = [signal.getsignal(number) for number in CAUGHT], signal.pthread_sigmask(signal.SIG_BLOCK, ())
    listener = Listener(requeue=False)
    listener.start()
    assert set(CAUGHT) <= signal.pthread_sigmask(signal.SIG_BLOCK, ())
    listener.stop()
    after = [signal.getsignal(number) for number in CAUGHT], signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert after == before


@pytest.mark.parametrize(("name", "requeued"), [("SIGTERM", True), ("SIGINT", False)])
def test_slurm_jobs_are_requeued_by_what_stopped_them(tmp_path, name, requeued):
    stub = tmp_path / "bin" / "scontrol"  # stands for the cluster, which cannot be had here
    stub.parent.mkdir()
    stub.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
    path = f"{stub.parent}:{os.environ['PATH']}"
    settings = [*TINY, f"hydra.run.dir={tmp_path}/run", "signals.requeue=true"]
    process = start(*settings, PATH=path, SLURM_JOB_ID="4711")
    wait_for(tmp_path / "run" / "checkpoints" / "step-00000005", process)
    process.send_signal(getattr(signal, name))
    process.communicate(timeout=60)
    asked = (tmp_path / "asked").read_text() if (tmp_path / "asked").exists() else ""
    assert asked == ("requeue 4711\n" if requeued else "")

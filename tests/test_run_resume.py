"""Killed and stopped runs, in real processes: what goes on is the same run."""

import signal
import socket

import pytest

from processes import TINY, but, final_state, run, start, wait_for


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    finished = run(*TINY, f"hydra.run.dir={folder}")
    assert finished.returncode == 0, finished.stderr
    return final_state(finished)


def test_two_runs_end_in_the_same_state(tmp_path, reference):
    assert final_state(run(*but("data.prefetch=2"), f"hydra.run.dir={tmp_path}")) == reference


def test_another_seed_ends_in_another_state(tmp_path, reference):
    assert final_state(run(*TINY, f"hydra.run.dir={tmp_path}", "seed=1")) != reference


@pytest.mark.parametrize("step", [5, 25, 45])
def test_a_run_killed_with_9_and_started_again_ends_in_the_same_state(tmp_path, reference, step):
    again = [*TINY, f"hydra.run.dir={tmp_path}", "resume=auto"]
    process = start(*again)
    wait_for(tmp_path / "checkpoints" / f"step-{step:08d}", process)
    process.kill()
    process.communicate()
    resumed = run(*again)
    assert "resumed from step-" in resumed.stderr
    assert final_state(resumed) == reference


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)])
def test_a_signal_ends_the_run_with_its_code_and_a_checkpoint_that_goes_on_exactly(tmp_path, reference, name, code):
    again = [*TINY, f"hydra.run.dir={tmp_path}", "resume=auto"]
    process = start(*again)
    wait_for(tmp_path / "checkpoints" / "step-00000010", process)
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert err.count("Traceback") == 0
    assert final_state(run(*again)) == reference


def test_usr1_saves_and_goes_on(tmp_path, reference):
    settings = but("callbacks.checkpointing.every=1000", "callbacks.checkpointing.keep=9")
    process = start(*settings, f"hydra.run.dir={tmp_path}")
    wait_for(tmp_path / "checkpoints" / "step-00000020", process)
    process.send_signal(signal.SIGUSR1)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert reference in out
    steps = {int(path.name[5:13]) for path in (tmp_path / "checkpoints").iterdir()}
    assert steps - {20, 40, 60}, steps


def test_a_second_process_on_the_same_folder_ends_with_73_and_names_the_first(tmp_path, reference):
    again = [*TINY, f"hydra.run.dir={tmp_path}", "resume=auto"]
    first = start(*but("trainer.max_steps=4000"), f"hydra.run.dir={tmp_path}", "resume=auto")
    wait_for(tmp_path / "checkpoints" / "step-00000005", first)
    second = run(*again)
    first.kill()
    first.communicate()
    assert second.returncode == 73
    assert second.stderr.strip().endswith(f"in use by process {first.pid} on {socket.gethostname()}")
    assert run(*but("trainer.max_steps=5"), f"hydra.run.dir={tmp_path}/other").returncode == 0

"""examples/slurm: a task of the array is stopped at its time limit, requeued, and continued by the same script."""

import re
import subprocess

import pytest

from support.example_projects import EXAMPLES, programs
from support.processes import ROOT, environment, final_state, tiny_overrides, wait_for

SCRIPT = EXAMPLES / "slurm" / "sweep.sh"
TASK = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_JOB_ID": "4711", "SLURM_JOB_ID": "4714"}


def submit(folder, *args, **variables):
    env = environment(PYTHONPATH=str(ROOT / "src"), **(TASK | variables))
    return subprocess.Popen(
        ["bash", SCRIPT, *args], cwd=folder, env=env, stdout=-1, stderr=-1, text=True
    )


def test_each_task_of_the_array_has_settings_of_its_own(tmp_path):
    path = programs(tmp_path / "bin")
    (tmp_path / "bin" / "mlxlab").write_text('#!/bin/sh\necho "$@"\n')
    tasks = re.search(r"^#SBATCH --array=(\d+)-(\d+)$", SCRIPT.read_text(), re.M)
    settings = set()
    for task in range(int(tasks[1]), int(tasks[2]) + 1):
        env = {**TASK, "PATH": path, "SLURM_ARRAY_TASK_ID": str(task)}
        command = subprocess.check_output(["bash", SCRIPT, "x=1"], env=env, text=True)
        assert f"/{task} " in command
        assert command.endswith(" x=1\n")
        settings.add(re.search(r"trainer\.learning_rate=\S+ seed=\S+", command)[0])
    assert len(settings) == 6


@pytest.mark.fault_injection
def test_a_task_survives_its_time_limit(tmp_path):
    path = programs(tmp_path / "bin", "scontrol")
    (tmp_path / "bin" / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    tiny = tiny_overrides("trainer.max_steps=150", "~callbacks.progress_bar")
    settings = [each for each in tiny if not each.startswith(("tracking=", "checkpointing."))]
    task = submit(tmp_path, *settings, PATH=path)
    folder = tmp_path / "outputs" / "learning-rates-4711" / "3"
    wait_for(folder / "checkpoints" / "step-00000050", task)
    task.terminate()
    _, err = task.communicate(timeout=120)
    assert task.returncode == 143, err
    assert (tmp_path / "calls").read_text() == "requeue 4714\n"
    again = submit(tmp_path, *settings, PATH=path)
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert "resumed from step-" in err
    whole = submit(tmp_path, *settings, PATH=path, SLURM_ARRAY_JOB_ID="4800")
    assert final_state(subprocess.CompletedProcess([], 0, *whole.communicate(timeout=300))) in out

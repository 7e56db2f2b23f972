"""The config of a resumed run: that of its checkpoint, with what was typed."""

import shutil

import pytest

from mlxlab.config.check import read_stored_config
from support.configs import user_config  # noqa: F401
from support.processes import run_here, tiny_overrides

CHEAP = ["data.source=synthetic", "data.templates=[basic]", "data.augment.copies=1", "~callbacks.learning_curve"]
START = tiny_overrides("trainer.max_steps=4", "trainer.eval_every=4", "tags.note='\\${x}'", *CHEAP)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    finished = run_here(*START, f"hydra.run.dir={folder}")
    assert finished.returncode == 0, finished.stderr
    return folder


@pytest.fixture
def run_dir(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "run")


def resume(folder, *overrides):
    return run_here("tracking=none", *overrides, "resume=auto", f"hydra.run.dir={folder}")


def stored(folder):
    return read_stored_config(folder / "inference" / "config.yaml")


def test_an_escaped_interpolation_is_text_on_resume_too(run_dir):
    assert stored(run_dir)["tags"]["note"] == "${x}"
    resumed = resume(run_dir, "trainer.max_steps=6")
    assert resumed.returncode == 0, resumed.stderr
    assert stored(run_dir)["tags"]["note"] == "${x}"


def test_a_config_whose_values_conflict_is_refused_by_key(run_dir):
    resumed = resume(run_dir, "trainer.schedule.warmup=5")
    assert resumed.returncode == 2
    assert resumed.stderr == "trainer.schedule.warmup=5: a warm-up of 5 steps is longer than the run of 4\n"


@pytest.mark.parametrize("defaults", ["", "defaults: [other]\n", "defaults: [/experiment/other]\n"])
def test_an_option_of_the_user_changes_a_resumed_run(run_dir, user_config, defaults):  # noqa: F811
    values = "trainer:\n  max_steps: 6\n"
    user_config(f"# @package _global_\n{values}", "experiment/other.yaml")
    flags = user_config(f"# @package _global_\n{defaults or values}")
    resumed = resume(run_dir, *flags)
    assert resumed.returncode == 0, resumed.stderr
    assert "changed since the checkpoint: trainer.max_steps: 4 -> 6" in resumed.stderr
    assert stored(run_dir)["trainer"]["max_steps"] == 6

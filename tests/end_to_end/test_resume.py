"""Killed and stopped runs, in real processes: what goes on is the same run."""

import json
import shutil
import signal
import socket

import pytest
import yaml

from support.processes import (
    TINY,
    final_state,
    run,
    run_here,
    start,
    succeed,
    succeed_here,
    tiny_overrides,
    wait_for,
)
from support.titanic import csv_text, real_rows

OTHER_SIGNALS = [("SIGINT", 130), ("SIGHUP", 129)]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    finished = succeed(*TINY, f"hydra.run.dir={folder}")
    return final_state(finished)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished run, shared: whoever is refused must leave it as it is."""
    folder = tmp_path_factory.mktemp("finished")
    succeed_here(*tiny_overrides("trainer.max_steps=5"), f"hydra.run.dir={folder}")
    return folder


def test_two_runs_of_a_seed_end_in_the_same_state_and_of_another_seed_do_not(tmp_path, reference):
    again = run(*tiny_overrides("data.prefetch=2"), f"hydra.run.dir={tmp_path}/a")
    assert final_state(again) == reference
    assert final_state(run(*TINY, f"hydra.run.dir={tmp_path}/b", "seed=1")) != reference


@pytest.mark.parametrize("step", [15, pytest.param(25, marks=pytest.mark.slow)])
def test_a_killed_and_resumed_run_ends_in_the_same_state(tmp_path, reference, step):
    again, fresh = [*TINY, f"hydra.run.dir={tmp_path}", "resume=auto"], step == 15
    process = start(*again, fresh=fresh)
    wait_for(tmp_path / "checkpoints" / f"step-{step:08d}", process)
    process.kill()
    process.communicate()
    resumed = run(*again, fresh=fresh)
    assert "resumed from step-" in resumed.stderr
    assert final_state(resumed) == reference


@pytest.mark.parametrize(
    ("name", "code"),
    [("SIGTERM", 143), *(pytest.param(*each, marks=pytest.mark.slow) for each in OTHER_SIGNALS)],
)
def test_a_signal_ends_the_run_with_its_code_and_an_exact_checkpoint(
    tmp_path, reference, name, code
):
    again = [*TINY, f"hydra.run.dir={tmp_path}", "resume=auto"]
    process = start(*again)
    wait_for(tmp_path / "checkpoints" / "step-00000010", process)
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert f"{name}: finishing the current step" in err
    assert final_state(run(*again)) == reference


def test_sigusr1_saves_and_continues(tmp_path, reference):
    settings = tiny_overrides("checkpointing.every_steps=1000", "checkpointing.keep=9")
    process = start(*settings, f"hydra.run.dir={tmp_path}")
    wait_for(tmp_path / "checkpoints" / "step-00000020", process)
    process.send_signal(signal.SIGUSR1)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert reference in out
    steps = {int(path.name[5:13]) for path in (tmp_path / "checkpoints").iterdir()}
    assert steps - {20, 40}, steps


def test_a_second_process_in_the_same_folder_exits_with_73_and_names_the_first(tmp_path):
    args = [*tiny_overrides("trainer.max_steps=4000"), f"hydra.run.dir={tmp_path}", "resume=auto"]
    first = start(*args)
    wait_for(tmp_path / "checkpoints" / "step-00000005", first)
    second = run(*args)
    first.kill()
    first.communicate()
    assert second.returncode == 73
    assert f"in use by process {first.pid} on {socket.gethostname()}" in second.stderr


def test_a_resume_uses_the_saved_config_and_records_the_overrides(tmp_path):
    short = tiny_overrides("trainer.max_steps=10", "trainer.learning_rate=0.002")
    succeed_here(*short, f"hydra.run.dir={tmp_path}")
    resume = [f"hydra.run.dir={tmp_path}", "resume=auto", "tracking=none"]
    longer = succeed_here(*resume, "trainer.max_steps=15")
    assert "trainer.max_steps: 10 -> 15" in longer.stderr
    changes = json.loads((tmp_path / "resume_changes.json").read_text())
    assert changes == [{"step": 10, "changes": {"trainer.max_steps": {"old": 10, "new": 15}}}]
    config = yaml.safe_load((tmp_path / "inference" / "config.yaml").read_text())
    assert (config["trainer"]["learning_rate"], config["model"]["hidden_size"]) == (0.002, 32)


def test_a_resume_with_a_deeper_model_says_what_it_carried_over_and_can_be_verified(
    finished, tmp_path
):
    folder = shutil.copytree(finished, tmp_path / "run")
    deeper = ["model.num_layers=2", "model/adapter=lora", "trainer.max_steps=6"]
    deeper += ["checkpointing.every_steps=1"]
    resumed = succeed_here(*deeper, f"hydra.run.dir={folder}", "resume=auto", "tracking=none")
    assert "model.num_layers: 1 -> 2" in resumed.stderr
    assert "weights of step-00000005: 13 matched, 12 renamed, 17 grown, 24 new\n" in resumed.stderr
    state = "optimizer state: 2 by path, 0 by map, 0 by shape, 24 fresh, 23 dropped\n"
    assert state in resumed.stderr
    [record] = json.loads((folder / "transfer.json").read_text())
    assert (record["source"], record["step"]) == (f"{folder}/checkpoints/step-00000005", 5)
    verified = succeed_here(str(folder), script="verify")
    assert "step-00000006: bitwise what training from step 5 gives" in verified.stdout


@pytest.mark.parametrize("override", ["seed=3", "model.hidden_size=64", "data.fold=1 data.folds=5"])
def test_a_frozen_key_or_an_inexact_change_of_the_model_is_refused_by_name_on_resume(
    finished, override
):
    resume = [f"hydra.run.dir={finished}", "resume=auto", "tracking=none"]
    refused = run_here(*override.split(), *resume)
    assert refused.returncode == 2, refused.stderr
    assert override.split("=")[0] in refused.stderr.splitlines()[0]


def test_data_that_changed_since_the_checkpoint_is_refused_unless_allowed(tmp_path):
    table, rows = tmp_path / "rows.csv", real_rows()[:40]
    table.write_text(csv_text(rows))
    settings = [*tiny_overrides("trainer.max_steps=5"), f"hydra.run.dir={tmp_path}/run"]
    settings += [f"data.source={table}", "resume=auto"]
    succeed_here(*settings)
    table.write_text(csv_text([rows[0]._replace(name="Other, Mr. One"), *rows[1:]]))
    refused = run_here(*settings)
    assert refused.returncode == 77
    assert "data changed since the save" in refused.stderr
    succeed_here(*settings, "trainer.max_steps=8", "resume_policy.allow_data_change=true")

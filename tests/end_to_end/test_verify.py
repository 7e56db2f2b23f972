"""`verify`: each checkpoint is what training from the one before it gives, or the first that differs is named.

`reproduce`: the whole run again, from its `run.lock`.
"""

import json
import shutil

import mlx.core as mx
import pytest

from mlxlab.checkpoint.manifest import MANIFEST, write_manifest
from mlxlab.errors import ConfigError, DataError, NotAllowedError
from mlxlab.past_runs.run_lock import read_lock
from mlxlab.record.run_file import read_run
from mlxlab.run.verify import config_to_reproduce
from support.processes import run_here, succeed_here, tiny_overrides


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    cheap = ["data.templates=[basic]", "data.augment.copies=1"]
    settings = tiny_overrides(
        *cheap, "trainer.max_steps=12", "checkpointing.every_steps=4", "trainer.eval_every=6"
    )
    succeed_here(*settings, f"hydra.run.dir={path}")
    return path


def test_verify_accepts_an_intact_run_here(folder):
    done = succeed_here(f"run={folder}", "from_scratch=true", script="verify")
    assert done.stdout.splitlines()[-1] == "verified"
    assert "step-00000012: bitwise what training from step 8 gives" in done.stdout


def rewrite_weights(checkpoint, change):
    """Changes one weight and writes checksums that fit; returns the name of the weight."""
    weights = dict(mx.load(str(checkpoint / "model.safetensors")))
    fields = {
        key: json.loads((checkpoint / MANIFEST).read_text())[key] for key in ("step", "best_step")
    }
    name = "backbone.layers.0.attention.key.weight"
    (checkpoint / "model.safetensors").unlink()
    mx.save_safetensors(
        str(checkpoint / "model.safetensors"), weights | {name: change(weights[name])}
    )
    (checkpoint / MANIFEST).unlink()
    write_manifest(checkpoint, **fields)
    return name


def test_verify_names_weights_that_retraining_does_not_reproduce(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "run")
    name = rewrite_weights(
        copy / "checkpoints" / "step-00000012", lambda weight: weight * 1.0000001 + 1e-9
    )
    done = run_here(str(copy), script="verify")
    assert done.returncode == 76
    assert f"step-00000012: model {name}" in done.stderr


def test_verify_names_weights_that_do_not_fit_the_model(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "run")
    name = rewrite_weights(
        copy / "checkpoints" / "step-00000008", lambda weight: weight.reshape(-1)
    )
    done = run_here(str(copy), script="verify")
    assert done.returncode == 76
    assert len(done.stderr.splitlines()) == 1
    assert f"step-00000008: model array {name}: expected mlx.core." in done.stderr


def test_wrong_arguments_are_one_line(folder, tmp_path):
    assert run_here("from=stat", str(folder), script="verify").returncode == 2
    missing = run_here(str(tmp_path), script="verify")
    assert (missing.returncode, missing.stderr.count("\n")) == (66, 1)
    untracked = run_here("0a1b2c3d", f"out={tmp_path}/again", script="reproduce")
    assert untracked.returncode in (2, 69)  # no such run, or no store
    assert untracked.stderr.startswith("0a1b2c3d: ")
    assert untracked.stderr.count("\n") == 1


def test_reproduce_trains_the_same_run_and_names_the_step_of_another_loss(folder, tmp_path):
    lock = json.loads((folder / "run.lock").read_text())
    assert [*lock["losses"]] == [*map(str, range(1, 11))]
    lock["losses"]["7"] *= 1.5
    lock["versions"]["mlx"] = "0.1.0\x1b[31m"
    (tmp_path / "other.lock").write_text(json.dumps(lock))
    diverged = run_here(str(tmp_path / "other.lock"), f"out={tmp_path}/again", script="reproduce")
    assert diverged.returncode == 76, diverged.stderr
    assert (
        "diverged at step 7 (relative difference up to 0.33), because these differ:"
        in diverged.stdout
    )
    assert "\n  mlx: 0.1.0 [31m -> " in diverged.stdout
    report = json.loads((tmp_path / "again" / "reproduction.json").read_text())
    assert (report["result"], report["diverged_at"], report["complete"]) == ("diverged", 7, True)
    again = read_lock(tmp_path / "again")
    original = read_lock(folder)
    assert (again["losses"], again["outcome"]) == (original["losses"], original["outcome"])
    command = read_run(tmp_path / "again").command
    assert command.overrides == original["overrides"]
    assert command.first[-1] == f"hydra.run.dir={tmp_path}/again"


def test_a_lock_of_a_stranger_reaches_nothing_outside_the_new_folder(folder):
    lock = read_lock(folder)
    config = lock["config"]
    config["tracking"] = {
        "_target_": "mlxlab.tracking.journal.Journal",
        "uri": "http://example.com",
    }
    config["tracking"] |= {"artifacts": None, "experiment": "x", "log_models": True, "wait": 0}
    config["callbacks"]["csv"] |= {"path": "/etc/metrics.csv", "allow_outside": True}
    config["signals"]["requeue"] = True
    harmless = config_to_reproduce(lock, "run.lock")
    assert harmless["tracking"] == {"_target_": "mlxlab.tracking.tracker.NoTracker"}
    assert harmless["cloud"] == {"_target_": "mlxlab.run.storage.NoCloud"}
    assert not harmless["callbacks"]["csv"]["allow_outside"]
    assert not harmless["signals"]["requeue"]
    for target in ("os.system", "mlxlab.cli.app.run_subcommand", 3):
        with pytest.raises(NotAllowedError):
            config_to_reproduce(
                {**lock, "config": config | {"model": {"_target_": target}}}, "run.lock"
            )
    with pytest.raises(DataError):
        config_to_reproduce({**lock, "config": {}}, "run.lock")
    with pytest.raises(
        ConfigError, match=r"checkpoint elsewhere, which a lock does not hold; .*rerun="
    ):
        config_to_reproduce({**lock, "forked_from": "elsewhere"}, "run.lock")


def test_a_damaged_lock_is_one_line(folder, tmp_path):
    good = (folder / "run.lock").read_text()
    for text, code in [("", 65), ("{}", 65), (good.replace('"1": ', '"one": '), 65), (None, 66)]:
        (tmp_path / "run.lock").unlink(missing_ok=True)
        if text is not None:
            (tmp_path / "run.lock").write_text(text)
        done = run_here(str(tmp_path), script="reproduce")
        assert (done.returncode, done.stderr.count("\n"), done.stdout) == (code, 1, "")


def test_a_resumed_run_has_the_lock_of_an_uninterrupted_one(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "run")
    shutil.rmtree(copy / "checkpoints" / "step-00000012")
    lock = json.loads((copy / "run.lock").read_text())
    lock["losses"]["9"] = 7.0  # after the checkpoint: recorded again
    (copy / "run.lock").write_text(json.dumps(lock))
    succeed_here(f"resume={copy}")
    original, now = read_lock(folder), read_lock(copy)
    assert (now["losses"], now["outcome"]) == (original["losses"], original["outcome"])
    assert (now["forked_from"], now["changed_at"]) == (None, [])

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
from support.foreign_runs import csv, journal
from support.processes import run_here, succeed_here, tiny_overrides


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    cheap = ["data.templates=[basic]", "data.augment.copies=1"]
    steps = ["trainer.max_steps=12", "checkpointing.every_steps=4", "trainer.eval_every=6"]
    succeed_here(*tiny_overrides(*cheap, *steps), f"hydra.run.dir={path}")
    return path


def test_verify_accepts_an_intact_run_here(folder):
    done = succeed_here(f"run={folder}", "from_scratch=true", script="verify")
    assert done.stdout.splitlines()[-1] == "verified"
    assert "step-00000012: bitwise what training from step 8 gives" in done.stdout


def rewrite_weights(checkpoint, change):
    """Changes one weight and writes checksums that fit; returns the name of the weight."""
    path, manifest = checkpoint / "model.safetensors", checkpoint / MANIFEST
    weights = dict(mx.load(str(path)))
    fields = json.loads(manifest.read_text())
    name = "backbone.layers.0.attention.key.weight"
    path.unlink()
    mx.save_safetensors(str(path), weights | {name: change(weights[name])})
    manifest.unlink()
    write_manifest(checkpoint, step=fields["step"], best_step=fields["best_step"])
    return name


@pytest.mark.parametrize(
    ("step", "change", "message"),
    [
        (12, lambda weight: weight * 1.0000001 + 1e-9, "step-00000012: model {}"),
        (8, lambda weight: weight.reshape(-1), "step-00000008: model array {}: expected mlx.core."),
    ],
    ids=["not reproduced", "another shape"],
)
def test_verify_names_other_weights(folder, tmp_path, step, change, message):
    copy = shutil.copytree(folder, tmp_path / "run")
    name = rewrite_weights(copy / "checkpoints" / f"step-{step:08d}", change)
    done = run_here(str(copy), script="verify")
    assert done.returncode == 76
    assert message.format(name) in done.stderr


def test_wrong_arguments_are_one_line(folder, tmp_path):
    assert run_here("from=stat", str(folder), script="verify").returncode == 2
    missing = run_here(str(tmp_path), script="verify")
    assert (missing.returncode, missing.stderr.count("\n")) == (66, 1)


def test_reproduce_trains_the_same_run_and_names_the_step_of_another_loss(folder, tmp_path):
    lock = json.loads((folder / "run.lock").read_text())
    assert [*lock["losses"]] == [*map(str, range(1, 11))]
    lock["losses"]["7"] *= 1.5
    lock["versions"]["mlx"] = "0.1.0\x1b[31m"
    (tmp_path / "other.lock").write_text(json.dumps(lock))
    diverged = run_here(str(tmp_path / "other.lock"), f"out={tmp_path}/again", script="reproduce")
    assert diverged.returncode == 76, diverged.stderr
    assert "diverged at step 7 (relative difference up to 0.33)" in diverged.stdout
    assert "\n  mlx: 0.1.0 [31m -> " in diverged.stdout
    report = json.loads((tmp_path / "again" / "reproduction.json").read_text())
    assert (report["result"], report["diverged_at"], report["complete"]) == ("diverged", 7, True)
    again = read_lock(tmp_path / "again")
    original = read_lock(folder)
    assert (again["losses"], again["outcome"]) == (original["losses"], original["outcome"])
    assert read_run(tmp_path / "again").command.overrides == original["overrides"]


def test_a_lock_of_a_stranger_reaches_nothing_outside_the_new_folder(folder):
    lock = read_lock(folder)
    config = lock["config"]
    config["tracking"] = journal("http://example.com")
    config["callbacks"]["csv"] = csv("/etc/metrics.csv")
    config["signals"]["requeue"] = True
    harmless = config_to_reproduce(lock, "run.lock")
    assert harmless["tracking"] == {"_target_": "mlxlab.tracking.tracker.NoTracker"}
    assert harmless["cloud"] == {"_target_": "mlxlab.run.storage.NoCloud"}
    assert not harmless["callbacks"]["csv"]["allow_outside"]
    assert not harmless["signals"]["requeue"]
    for target in ("os.system", "mlxlab.cli.app.run_subcommand", 3):
        hostile = config | {"model": {"_target_": target}}
        with pytest.raises(NotAllowedError):
            config_to_reproduce({**lock, "config": hostile}, "run.lock")
    with pytest.raises(DataError):
        config_to_reproduce({**lock, "config": {}}, "run.lock")
    with pytest.raises(ConfigError, match=r"checkpoint elsewhere, which a lock does not hold"):
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

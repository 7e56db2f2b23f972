"""`verify`: each checkpoint is what training from the one before it gives, or the first that differs is named."""

import json
import shutil

import mlx.core as mx
import pytest

from mlxlab.checkpoint.manifest import MANIFEST, write_manifest
from support.processes import run_here, tiny_overrides


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    cheap = ["data.templates=[basic]", "data.augment.copies=1", "~callbacks.learning_curve"]
    settings = tiny_overrides(*cheap, "trainer.max_steps=12", "checkpointing.every_steps=4", "trainer.eval_every=6")
    finished = run_here(*settings, f"hydra.run.dir={path}")
    assert finished.returncode == 0, finished.stderr
    return path


def test_verify_accepts_an_intact_run_here(folder):
    done = run_here(f"run={folder}", "from_scratch=true", script="verify")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "verified"
    assert "step-00000012: bitwise what training from step 8 gives" in done.stdout


def rewrite_weights(checkpoint, change):
    """Changes one weight and writes checksums that fit; returns the name of the weight."""
    weights = dict(mx.load(str(checkpoint / "model.safetensors")))
    fields = {key: json.loads((checkpoint / MANIFEST).read_text())[key] for key in ("step", "best_step")}
    name = "backbone.layers.0.attention.key.weight"
    (checkpoint / "model.safetensors").unlink()
    mx.save_safetensors(str(checkpoint / "model.safetensors"), weights | {name: change(weights[name])})
    (checkpoint / MANIFEST).unlink()
    write_manifest(checkpoint, **fields)
    return name


def test_verify_names_weights_that_retraining_does_not_reproduce(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "run")
    name = rewrite_weights(copy / "checkpoints" / "step-00000012", lambda weight: weight * 1.0000001 + 1e-9)
    done = run_here(str(copy), script="verify")
    assert done.returncode == 76
    assert f"step-00000012: model {name}" in done.stderr


def test_verify_names_weights_that_do_not_fit_the_model(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "run")
    name = rewrite_weights(copy / "checkpoints" / "step-00000008", lambda weight: weight.reshape(-1))
    done = run_here(str(copy), script="verify")
    assert done.returncode == 76
    assert len(done.stderr.splitlines()) == 1
    assert f"step-00000008: model array {name}: expected shape" in done.stderr


def test_wrong_arguments_are_one_line(folder, tmp_path):
    assert run_here("from=stat", str(folder), script="verify").returncode == 2
    missing = run_here(str(tmp_path), script="verify")
    assert (missing.returncode, missing.stderr.count("\n")) == (66, 1)

"""`verify`: a run is what its checkpoints say, or the first that is not is named."""

import json

import mlx.core as mx
import pytest

from mlxlab.checkpoint.manifest import MANIFEST, write_manifest
from support.processes import but, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    settings = but("trainer.max_steps=12", "checkpointing.every_steps=4", "trainer.eval_every=6")
    finished = run(*settings, f"hydra.run.dir={path}")
    assert finished.returncode == 0, finished.stderr
    return path


def test_verify_accepts_an_intact_run(folder):
    done = run(str(folder), "from_scratch=true", script="verify")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "verified"
    assert "step-00000012: bitwise what training from step 8 gives" in done.stdout


def test_verify_names_weights_that_retraining_does_not_reproduce(folder):
    path = folder / "checkpoints" / "step-00000012"
    weights = mx.load(str(path / "model.safetensors"))
    before = (path / "model.safetensors").read_bytes(), (path / MANIFEST).read_bytes()
    name = "backbone.layers.0.attention.key.weight"
    weights[name] = weights[name] * 1.0000001 + 1e-9
    mx.save_safetensors(str(path / "model.safetensors"), weights, {"format": "mlx"})
    fields = {key: json.loads(before[1])[key] for key in ("step", "emergency", "best_step")}
    (path / MANIFEST).unlink()
    write_manifest(path, **fields)
    done = run(str(folder), script="verify")
    (path / "model.safetensors").write_bytes(before[0])
    (path / MANIFEST).write_bytes(before[1])
    assert done.returncode == 76
    assert f"step-00000012: model {name}" in done.stderr


def test_wrong_arguments_are_one_line(folder, tmp_path):
    assert run("from=stat", str(folder), script="verify").returncode == 2
    missing = run(str(tmp_path), script="verify")
    assert (missing.returncode, missing.stderr.count("\n")) == (66, 1)

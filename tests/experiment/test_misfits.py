"""Checkpoints whose checksums are right but whose arrays do not fit: refused by name, and an older one is used."""

import json

import mlx.core as mx
import pytest

from mlxlab.checkpoint.manifest import MANIFEST, write_manifest
from mlxlab.cli.train import main

WORDS = [
    "tracking=none",
    "data.source=synthetic",
    "data.templates=[basic]",
    "data.augment.copies=1",
    "data.prefetch=0",
    "data.batch_size=16",
    "model.num_layers=1",
    "model.hidden_size=16",
    "model.num_heads=2",
    "model.intermediate_size=16",
    "trainer.eval_every=2",
    "checkpointing.every_steps=2",
]


def train(folder, *words):
    return main([*WORDS, *words, f"hydra.run.dir={folder}"])


def forge(path, file, change):
    """Changes the arrays of a checkpoint and signs it anew."""
    arrays = mx.load(str(path / file))
    arrays = change(dict(arrays))
    fields = {key: json.loads((path / MANIFEST).read_text())[key] for key in ("step", "emergency", "best_step")}
    (path / file).unlink()
    mx.save_safetensors(str(path / file), arrays, {"format": "mlx"})
    (path / MANIFEST).unlink()
    write_manifest(path, **fields)


def with_first(arrays, ending, change):
    name = next(name for name in sorted(arrays) if name.endswith(ending))
    return arrays | {name: change(arrays[name])}


HARM = {
    "integer weights": ("model.safetensors", lambda a: with_first(a, "weight", lambda x: x.astype(mx.int32))),
    "NaN weights": ("model.safetensors", lambda a: with_first(a, "weight", lambda x: x * float("nan"))),
    "missing weights": ("model.safetensors", lambda a: dict(list(a.items())[1:])),
    "moments": ("optimizer.safetensors", lambda a: with_first(a, "weight.m", lambda x: x.reshape(-1))),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_misfit_is_named_and_an_older_checkpoint_is_used(tmp_path, capsys, harm):
    assert train(tmp_path, "trainer.max_steps=4") == 0
    file, change = HARM[harm]
    forge(tmp_path / "checkpoints" / "step-00000004", file, change)
    capsys.readouterr()
    assert train(tmp_path, "trainer.max_steps=4", "resume=step-4") == 76
    assert capsys.readouterr().err.count("step-00000004: ") == 1
    assert train(tmp_path, "trainer.max_steps=4", "resume=auto") == 0
    lines = capsys.readouterr().err
    assert "skipped step-00000004: " in lines
    assert "resumed from step-00000002" in lines


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "lion", "muon", "sgd"])
def test_the_state_of_every_optimizer_fits_its_own_checkpoint(tmp_path, optimizer):
    words = [f"trainer/optimizer={optimizer}", "resume=auto", "trainer.ema=0.9"]
    assert train(tmp_path, *words, "trainer.max_steps=2") == 0
    assert train(tmp_path, *words, "trainer.max_steps=4") == 0


def test_the_state_of_another_optimizer_is_refused(tmp_path, capsys):
    assert train(tmp_path, "trainer.max_steps=2") == 0
    capsys.readouterr()
    assert train(tmp_path, "trainer.max_steps=4", "trainer/optimizer=lion", "resume=auto") == 2
    assert "trainer.optimizer" in capsys.readouterr().err
    assert (tmp_path / "checkpoints" / "step-00000002").is_dir()

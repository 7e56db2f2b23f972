"""Checkpoints with valid checksums whose arrays do not fit: refused by name, and an older one is used."""

import json
import re
import shutil

import mlx.core as mx
import pytest
from omegaconf import OmegaConf

from mlxlab.checkpoint.manifest import MANIFEST, write_manifest
from mlxlab.checkpoint.store import check_arrays
from mlxlab.cli.train import main
from mlxlab.config.check import read_stored_config
from mlxlab.config.paths import conf_dir
from mlxlab.run.resume.start import Start
from mlxlab.run.session import build_session
from mlxlab.training.checkpointer import saved_arrays
from support.models import StopAt
from support.processes import tiny_overrides

SETTINGS = tiny_overrides(
    "trainer.max_steps=4", "trainer.eval_every=2", "checkpointing.every_steps=2"
)
SETTINGS += ["data.source=synthetic", "data.templates=[basic]", "data.augment.copies=1"]


def train(folder, *overrides):
    changed = {override.split("=")[0] for override in overrides}
    settings = [setting for setting in SETTINGS if setting.split("=")[0] not in changed]
    return main([*settings, *overrides, f"hydra.run.dir={folder}"])


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    assert train(folder) == 0
    return folder


@pytest.fixture
def run_dir(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "run")


def test_rows_longer_than_the_model_has_positions_for_are_refused(tmp_path, capsys):
    assert train(tmp_path / "run", "model.max_position_embeddings=4") == 2
    assert "the model has positions for 4 tokens" in capsys.readouterr().err


def forge(path, file, change):
    """Changes the arrays of a checkpoint and writes checksums that fit."""
    arrays = change(dict(mx.load(str(path / file))))
    fields = {key: json.loads((path / MANIFEST).read_text())[key] for key in ("step", "best_step")}
    (path / file).unlink()
    mx.save_safetensors(str(path / file), arrays, {"format": "mlx"})
    (path / MANIFEST).unlink()
    write_manifest(path, **fields)


def with_first(arrays, ending, change):
    name = next(name for name in sorted(arrays) if name.endswith(ending))
    return arrays | {name: change(arrays[name])}


CHANGES = {
    "NaN weights": ("model", "weight", lambda x: x * float("nan")),
    "moments of another shape": ("optimizer", "weight.m", lambda x: x.reshape(-1)),
    "integer weights": ("model", "weight", lambda x: x.astype(mx.int32)),
}
FIRST = "moments of another shape"  # the other kinds are tested in tests/checkpoint, through `check_arrays`
CASES = [
    name if name == FIRST else pytest.param(name, marks=pytest.mark.fault_injection)
    for name in CHANGES
]


@pytest.mark.parametrize("change", CASES)
def test_a_misfit_is_refused_in_a_line_that_names_an_older_checkpoint(run_dir, capsys, change):
    kind, ending, function = CHANGES[change]
    checkpoint = run_dir / "checkpoints" / "step-00000004"
    forge(checkpoint, f"{kind}.safetensors", lambda a: with_first(a, ending, function))
    for resume in ("step-4", "auto"):
        assert train(run_dir, f"resume={resume}") == 76
        line = capsys.readouterr().err.splitlines()[-1]
        assert "step-00000004: " in line
        older = f"resume={run_dir}/checkpoints/step-00000002"
        assert line.endswith(f"; {older} takes the one before")
    assert train(run_dir, older) == 0
    assert "resumed from step-00000002" in capsys.readouterr().err


def test_a_checkpoint_of_a_compiled_module_is_resumed_under_our_names(run_dir, capsys):
    path = run_dir / "checkpoints" / "step-00000004"
    names = re.compile(r"(?=backbone\.|head\.)")
    for file in ("model.safetensors", "optimizer.safetensors"):
        forge(path, file, lambda a: {names.sub("_orig_mod.", name, 1): x for name, x in a.items()})
    assert train(run_dir, "trainer.max_steps=5", "resume=auto") == 0
    lines = capsys.readouterr().err
    assert "weights of step-00000004: 25 renamed\n" in lines
    assert "optimizer state: 0 by path, 25 by map, 0 by shape, 0 fresh, 0 dropped\n" in lines


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "lion", "muon", "sgd"])
def test_the_state_of_every_optimizer_fits_its_own_checkpoint(optimizer, finished_run, tmp_path):
    config = read_stored_config(finished_run / "inference" / "config.yaml")
    node = OmegaConf.to_container(
        OmegaConf.load(conf_dir() / "trainer" / "optimizer" / f"{optimizer}.yaml")
    )
    config["trainer"] |= {"optimizer": node, "ema_decay": 0.9}
    session = build_session(Start(config), tmp_path)
    state = session.init_state()
    before = saved_arrays(state)
    session.fit(state, [StopAt(1)])
    for saved, expected, owner in zip(
        saved_arrays(state), before, ("model", "optimizer"), strict=True
    ):
        check_arrays(saved, expected, owner)


def test_the_state_of_another_optimizer_is_refused(run_dir, capsys):
    assert train(run_dir, "trainer.max_steps=6", "trainer/optimizer=lion", "resume=auto") == 2
    assert "trainer.optimizer" in capsys.readouterr().err
    assert (run_dir / "checkpoints" / "step-00000004").is_dir()

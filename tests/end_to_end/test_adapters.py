"""LoRA and QLoRA through the whole program: trained, killed, resumed, verified, restored, in a run folder that was moved."""

import shutil
from functools import partial

import mlx.core as mx
import pytest

from mlxlab.checkpoint.store import load_named
from mlxlab.inference.restore import restore_model
from mlxlab.models.layers import named_parameters
from support.models import assert_same
from support.processes import (
    final_state,
    killed_and_resumed,
    run,
    run_here,
    succeed_here,
    tiny_overrides,
)

SHORT = ["trainer.max_steps=6", "trainer.eval_every=3", "checkpointing.every_steps=3"]
LORA = partial(tiny_overrides, "model/adapter=lora", "model.adapter.rank=2")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora") / "run"
    done = succeed_here(*LORA(*SHORT), f"hydra.run.dir={folder}")
    return folder, done


def test_checkpoints_hold_what_is_trained(finished):
    folder, done = finished
    assert "trains 834 of " in done.stderr
    files = sorted((folder / "base").iterdir())
    assert len(files) == 1
    checkpoint = folder / "checkpoints" / "step-00000006"
    assert (checkpoint / "model.safetensors").stat().st_size < 10_000 < files[0].stat().st_size
    moments = (checkpoint / "optimizer.safetensors").stat().st_size
    assert moments < 20_000, "moments of frozen weights"
    assert done.stderr.count("the adapters train on random weights") == 1


def test_training_from_a_checkpoint_gives_the_next_one_bit_for_bit(finished):
    done = run_here(f"run={finished[0]}", "from_scratch=true", script="verify")
    assert done.stdout.splitlines()[-1] == "verified", done.stderr


def test_the_adapted_model_is_restored_from_a_moved_folder(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "moved")
    restored, trained = restore_model(folder), named_parameters(restore_model(finished[0]).model)
    assert_same(named_parameters(restored.model), trained)
    assert restored.model.backbone.layers[0].attention.query.scale == 8.0
    shutil.rmtree(folder / "base")
    done = run_here(f"run={folder}", script="evaluate")
    assert (done.returncode, len(done.stderr.splitlines())) == (76, 1), done.stderr


@pytest.mark.fault_injection
def test_an_adapted_run_is_a_teacher_and_an_adapted_student_has_one(finished, tmp_path):
    distill = ["trainer=distill", f"trainer.teachers=[{finished[0]}]", "trainer.ema_decay=0.9"]
    succeed_here(*LORA(*SHORT, *distill), f"hydra.run.dir={tmp_path}")
    names = load_named("last", tmp_path).weights
    assert any(name.endswith("lora_b") for name in names)


@pytest.mark.fault_injection
@pytest.mark.parametrize(
    "options", [["model.adapter.dora=true"], ["trainer=optimized", "trainer.ema_decay=0.9"]]
)
@pytest.mark.parametrize("step", [5, 20, 35])
def test_a_killed_and_resumed_run_ends_in_the_same_state(tmp_path, options, step):
    reference = final_state(run(*LORA(*options), f"hydra.run.dir={tmp_path}/reference"))
    assert killed_and_resumed(LORA(*options), tmp_path / "killed", step) == reference


QLORA = partial(LORA, "model/adapter=qlora", "model.quantization.group_size=32")


def test_quantised_weights_with_adapters_are_trained_verified_and_restored(tmp_path):
    succeed_here(*QLORA(*SHORT), f"hydra.run.dir={tmp_path}/run")
    resumed = run_here(f"run={tmp_path}/run", "from_scratch=true", script="verify")
    assert resumed.stdout.splitlines()[-1] == "verified", resumed.stderr
    arrays = named_parameters(restore_model(tmp_path / "run").model)
    query = "backbone.layers.0.attention.query"
    assert arrays[f"{query}.base.weight"].dtype == mx.uint32
    assert arrays[f"{query}.lora_a"].dtype == mx.float32
    succeed_here(f"run={tmp_path}/run", script="evaluate")


def test_quantised_weights_without_an_adapter_are_a_config_error(tmp_path):
    done = run_here(*tiny_overrides("model.quantization.bits=8"), f"hydra.run.dir={tmp_path}/run")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "cannot be trained (all of them); add model/adapter=lora, or freeze them" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.fault_injection
@pytest.mark.parametrize("options", [["model.quantization.mode=mxfp4"], ["trainer=optimized"]])
@pytest.mark.parametrize("step", [5, 25])
def test_a_killed_and_resumed_run_with_quantised_weights_ends_in_the_same_state(
    tmp_path, options, step
):
    reference = final_state(run(*QLORA(*options), f"hydra.run.dir={tmp_path}/reference"))
    assert killed_and_resumed(QLORA(*options), tmp_path / "killed", step) == reference

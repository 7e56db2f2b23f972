"""QLoRA through the whole program: trained, resumed, verified, restored; quantised weights alone are not trained."""

from functools import partial

import mlx.core as mx
import pytest

from mlxlab.inference.restore import restore_model
from mlxlab.models.layers import named_parameters
from support.processes import (
    final_state,
    killed_and_resumed,
    run,
    run_here,
    succeed_here,
    tiny_overrides,
)

SHORT = ["trainer.max_steps=4", "trainer.eval_every=2", "checkpointing.every_steps=2"]
QLORA = partial(
    tiny_overrides,
    "model/adapter=qlora",
    "model.hidden_size=32",
    "model.quantization.group_size=32",
)


def test_a_resumed_run_ends_in_the_same_state_and_is_restored(tmp_path):
    succeed_here(*QLORA(*SHORT), f"hydra.run.dir={tmp_path}/run")
    resumed = run_here(f"run={tmp_path}/run", "from_scratch=true", script="verify")
    assert resumed.stdout.splitlines()[-1] == "verified", resumed.stderr
    arrays = named_parameters(restore_model(tmp_path / "run").model)
    dtypes = {
        name: arrays[f"backbone.layers.0.attention.{name}"].dtype
        for name in ("query.base.weight", "query.lora_a")
    }
    assert dtypes == {"query.base.weight": mx.uint32, "query.lora_a": mx.float32}
    succeed_here(f"run={tmp_path}/run", script="evaluate")


def test_quantised_weights_without_an_adapter_are_a_config_error(tmp_path):
    done = run_here(*tiny_overrides("model.quantization.bits=8"), f"hydra.run.dir={tmp_path}/run")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "cannot be trained (all of them); add model/adapter=lora, or freeze them" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.fault_injection
@pytest.mark.parametrize("options", [["model.quantization.mode=mxfp4"], ["trainer=optimized"]])
@pytest.mark.parametrize("step", [5, 25])
def test_a_killed_and_resumed_run_ends_in_the_same_state(tmp_path, options, step):
    reference = final_state(run(*QLORA(*options), f"hydra.run.dir={tmp_path}/reference"))
    assert killed_and_resumed(QLORA(*options), tmp_path / "killed", step) == reference

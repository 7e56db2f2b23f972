"""What cannot be had with sharded weights is refused by name, and nothing else."""

import mlx.core as mx
import pytest
from omegaconf import OmegaConf

from mlxlab.config.hydra.compose import compose, without_hydra
from mlxlab.errors import ConfigError
from mlxlab.training.distributed.launch_env import refuse_unsharded
from mlxlab.training.distributed.process_group import ProcessGroup
from mlxlab.training.distributed.sharding import FullySharded


def config_of(*overrides):
    return OmegaConf.to_container(without_hydra(compose(list(overrides))), resolve=True)


GROWTH = "[{id: deeper, op: stack, map: [0,0,1,1], when: {or_steps: 50}}]"
DISTILL = ["trainer=distill", "trainer.teachers=[]"]


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer/optimizer=muon"],
        ["trainer/optimizer=adafactor"],
        ["trainer=optimized", "trainer.step.retry_on_oom=true"],
        ["trainer=optimized", "trainer.step.activation_checkpointing=true"],
        ["callbacks.analysis.metrics=all"],
        [f"callbacks.growth.operations={GROWTH}"],
    ],
    ids=lambda overrides: overrides[-1].partition("=")[0],
)
def test_a_setting_that_needs_whole_weights_is_refused(overrides):
    key = overrides[-1].partition("=")[0].replace("/", ".")
    with pytest.raises(ConfigError, match=f"^{key}=.*: with trainer.parallel=fsdp ") as caught:
        refuse_unsharded(config_of(*overrides))
    assert "\n" not in str(caught.value)


def test_a_scalar_weight_is_refused():
    with pytest.raises(ConfigError, match=r"^trainer.parallel=fsdp: gate is a scalar"):
        FullySharded(ProcessGroup(), {"gate": mx.array(1.0).shape})

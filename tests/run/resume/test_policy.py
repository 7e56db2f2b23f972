"""The policy without the growth extension keeps the model of a checkpoint."""

from pathlib import Path

import pytest

from mlxlab.checkpoint.store import Checkpoint
from mlxlab.errors import ConfigError
from mlxlab.models.build import Architecture
from mlxlab.run.resume.policy import Plan, SameModel
from support.checkpoints import state_at


def plan(changes):
    policy = SameModel(allow_data_change=False)
    checkpoint = Checkpoint(Path("step-00000003"), 3, {}, {}, state_at(3))
    architecture = Architecture({}, 8)
    return policy.plan(Plan(policy, {}, checkpoint, architecture, architecture, changes))


def test_a_longer_run_has_the_same_model():
    changes = {"trainer.max_steps": (2, 4)}
    assert plan(changes).changes == changes


@pytest.mark.parametrize("key", ["model.num_layers", "data.tokenizer.path"])
def test_another_model_is_refused_in_a_line_that_names_the_key(key):
    with pytest.raises(ConfigError, match=rf"^{key}=3: was 2 in the checkpoint.*") as refused:
        plan({key: (2, 3)})
    assert "\n" not in str(refused.value)

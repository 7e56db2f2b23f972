"""A checkpoint carried over to a changed model: outputs, optimizer state and the report, all counted exactly."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.checkpoint.arrays import AVERAGE, TRAINED, swap_weights
from mlxlab.checkpoint.store import Checkpoint
from mlxlab.errors import ConfigError
from mlxlab.extensions.growth.carry_over import carry_over
from mlxlab.extensions.growth.resume import changed_node, plan_growth
from mlxlab.models.build import Architecture, build_model
from mlxlab.models.layers import named_parameters
from mlxlab.run.resume.policy import Plan, SameModel
from mlxlab.training.optim.optimizers import EMAOptimizer, adamw, flatten_arrays
from support.checkpoints import state_at

FLOATS = {"_target_": "mlxlab.models.options.Quantization", "bits": None, "group_size": 32}
FLOATS |= {"mode": "affine", "skip": []}
NODE = {
    "_target_": "mlxlab.models.transformer.Transformer",
    "hidden_size": 32,
    "num_layers": 2,
    "num_heads": 2,
    "num_kv_heads": None,
    "intermediate_size": 64,
    "tie_embeddings": True,
    "adapter": None,
    "freeze": [],
    "quantization": FLOATS,
}
LORA = {"_target_": "mlxlab.models.options.LoRA", "rank": 2, "alpha": 3.0}
FORMS = {
    "plain": {},
    "lora": {"adapter": LORA},
    "qlora": {"adapter": LORA, "quantization": FLOATS | {"bits": 8}},
}
TOKENS = mx.array([[3, 5, 7, 30, 2, 1]])


def build(architecture, seed=None):
    model = build_model(
        architecture.node, kind="language_modelling", vocab_size=architecture.vocab_size, seed=seed
    )
    model.eval()
    return model


def optimizer_of(model, ema=False):
    optimizer = adamw(0.1, [0.9, 0.99], 1e-8, learning_rate=1e-3)
    optimizer = EMAOptimizer(optimizer, 0.9) if ema else optimizer
    optimizer.init(model.trainable_parameters())
    return flatten_arrays(optimizer.state)


def trained(architecture, ema=False):
    """A checkpoint of a model as if it were trained: no array is what it was at first."""
    rng = np.random.default_rng(0)

    def noise(arrays):
        noisy = dict(arrays)
        for name, array in sorted(arrays.items()):
            if array.dtype == mx.float32 and "scales" not in name:
                change = rng.uniform(0.01, 0.1, array.shape).astype(np.float32)
                noisy[name] = array + mx.array(change)
        return noisy

    model = build(architecture, seed=1)
    optimizer = {
        name: mx.array(9, array.dtype) if name.endswith("step") else array
        for name, array in noise(optimizer_of(model, ema)).items()
    }
    weights, optimizer = swap_weights(noise(named_parameters(model)), optimizer, AVERAGE, TRAINED)
    state = state_at(9) | {"architecture": architecture.node, "vocab_size": architecture.vocab_size}
    return Checkpoint(Path("step-00000009"), 9, weights, optimizer, state)


def resume(checkpoint, changes, *, ema=False, by_shape=False):
    before = Architecture(checkpoint.state["architecture"], checkpoint.state["vocab_size"])
    node = changed_node(before.node, before.node, before.node | changes)
    operations, after = plan_growth(before, node)
    cfg = {"seed": 4, "trainer": {}}
    plan = Plan(SameModel(False), cfg, checkpoint, before, after, {}, operations=operations)
    model = build(after, seed=4)
    state = optimizer_of(model, ema)
    return carry_over(checkpoint, plan, named_parameters(model), state, by_shape=by_shape)


def logits(checkpoint, weights=None):
    model = build(Architecture(checkpoint.state["architecture"], checkpoint.state["vocab_size"]))
    model.load_weights(list((weights or checkpoint.weights).items()))
    return np.array(model(TOKENS, mx.ones_like(TOKENS)))[..., :40]


def counts(carried):
    weights = {kind: len(names) for kind, names in carried.report.as_json().items()}
    optimizer = {kind: len(names) for kind, names in carried.optimizer.as_json().items() if names}
    return weights, optimizer


@pytest.fixture(scope="module")
def checkpoints():
    return {name: trained(Architecture(NODE | form, 40)) for name, form in FORMS.items()}


WIDER, DEEPER = {"intermediate_size": 96}, {"num_layers": 3}
NEW_ADAPTERS = {"fresh": 28, "dropped": 20}
RANK_CHANGE = ({"matched": 6, "merged": 14, "new": 28}, {"fresh": 28, "dropped": 28})


@pytest.mark.parametrize(
    ("form", "changes", "expected"),
    [
        ("plain", {}, ({"matched": 20}, {"by path": 20})),
        ("plain", {"adapter": LORA}, ({"matched": 6, "renamed": 14, "new": 28}, NEW_ADAPTERS)),
        ("lora", {"adapter": LORA | {"dropout": 0.5}}, ({"matched": 48}, {"by path": 28})),
        ("lora", {"adapter": None}, ({"matched": 6, "merged": 14}, {"fresh": 20, "dropped": 28})),
        ("lora", {"adapter": LORA | {"rank": 4}}, RANK_CHANGE),
        ("lora", {"adapter": LORA | {"alpha": 9.0}}, RANK_CHANGE),
        ("plain", FORMS["qlora"], ({"matched": 5, "converted": 45, "new": 28}, NEW_ADAPTERS)),
        ("lora", FORMS["qlora"], ({"matched": 33, "converted": 45}, {"by path": 28})),
        ("qlora", {"quantization": FLOATS}, ({"matched": 33, "converted": 15}, {"by path": 28})),
        (
            "plain",
            {"tie_embeddings": False},
            ({"matched": 20, "renamed": 1}, {"by path": 20, "by map": 1}),
        ),
        ("plain", {"freeze": ["layers.0"]}, ({"matched": 20}, {"by path": 11, "dropped": 9})),
    ],
)
def test_adapters_precision_and_freezing_change_no_output(checkpoints, form, changes, expected):
    old = checkpoints[form]
    carried = resume(old, changes)
    assert counts(carried) == expected
    is_exact = "qlora" not in form and changes is not FORMS["qlora"]
    tolerance = 2e-5 if is_exact else 0.05
    np.testing.assert_allclose(logits(carried.checkpoint), logits(old), atol=tolerance)
    fresh = carried.checkpoint.optimizer["states.0.step"].item() == 0
    assert fresh == (not carried.optimizer.by_path and not carried.optimizer.by_map)
    new = [name for name in carried.checkpoint.weights if name.endswith("lora_a")]
    assert all(carried.checkpoint.weights[name].any().item() for name in new)


def test_moments_of_copies_are_those_of_their_source(checkpoints):
    old, new = checkpoints["plain"], resume(checkpoints["plain"], DEEPER).checkpoint
    before, after = (f"states.0.backbone.layers.{layer}.attention.query.weight" for layer in (0, 1))
    for slot in ("m", "v"):
        np.testing.assert_array_equal(
            new.optimizer[f"{after}.{slot}"], old.optimizer[f"{before}.{slot}"]
        )
    zero = new.optimizer["states.0.backbone.layers.1.attention.out.weight.m"]
    assert not zero.any().item()


@pytest.mark.parametrize(
    "change", [DEEPER, WIDER, {"adapter": LORA}], ids=["deeper", "wider", "lora"]
)
def test_the_moving_average_and_the_trained_weights_are_both_carried_over(change):
    old = trained(Architecture(NODE, 40), ema=True)
    carried = resume(old, change, ema=True)
    new = carried.checkpoint
    np.testing.assert_allclose(logits(new), logits(old), atol=2e-5)
    live = [swap_weights(each.weights, each.optimizer, TRAINED, AVERAGE)[0] for each in (old, new)]
    if "adapter" not in change:  # Frozen weights have no average: the old one becomes the base.
        np.testing.assert_allclose(logits(new, live[1]), logits(old, live[0]), atol=2e-5)
    without = resume(old, WIDER)
    assert not any(name.startswith(TRAINED) for name in without.checkpoint.optimizer)
    np.testing.assert_allclose(logits(without.checkpoint), logits(old, live[0]), atol=2e-5)


def test_state_goes_by_shape_only_if_that_is_asked_for(checkpoints):
    change = {"adapter": LORA | {"targets": ["layers.0.attention.query"]}}
    old = resume(checkpoints["plain"], change).checkpoint
    moved = {"adapter": LORA | {"targets": ["layers.1.attention.query"]}}
    assert counts(resume(old, moved))[1] == {"fresh": 2, "dropped": 2}
    carried = resume(old, moved, by_shape=True)
    new, before = (f"backbone.layers.{layer}.attention.query.lora_a" for layer in (1, 0))
    assert carried.optimizer.by_shape[0] == f"{new} from {before}"
    assert counts(carried)[1] == {"by shape": 2}
    np.testing.assert_array_equal(
        carried.checkpoint.optimizer[f"states.0.{new}.m"], old.optimizer[f"states.0.{before}.m"]
    )


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"num_layers": 1}, r"model\.num_layers=1: was 2 in the checkpoint; a resume can"),
        ({"_target_": "mlxlab.models.bert.Bert"}, r"model\._target_=mlxlab.models.bert.Bert: was"),
        ({"norm_type": "layer"}, r"model\.norm_type=layer: was None"),
        ({"hidden_size": 16, "tie_embeddings": False}, r"^model\.hidden_size=16: was 32 in the"),
    ],
)
def test_what_cannot_be_exact_is_refused_in_one_line(changes, fault):
    before = Architecture(NODE, 40)
    allowed = NODE | {"num_layers": 3, "freeze": ["layers.0"]}
    assert plan_growth(before, allowed)[1].node["freeze"] == ["layers.0"]
    with pytest.raises(ConfigError, match=fault) as error:
        plan_growth(before, NODE | changes)
    assert "\n" not in str(error.value)


def test_only_what_differs_between_two_configs_changes_in_an_architecture():
    grown = NODE | {"num_layers": 4, "adapter": LORA | {"rank": 7}}
    saved = NODE | {"adapter": LORA}
    assert changed_node(grown, saved, saved) == grown
    assert changed_node(grown, saved, saved | WIDER) == grown | WIDER
    dropout = changed_node(grown, saved, saved | {"adapter": LORA | {"dropout": 0.1}})
    assert dropout == grown | {"adapter": LORA | {"rank": 7, "dropout": 0.1}}
    assert changed_node(grown, saved, saved | {"adapter": None}) == grown | {"adapter": None}

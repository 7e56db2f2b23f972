"""A checkpoint carried over to a changed model: outputs, optimizer state and the report, all counted exactly."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.checkpoint.store import Checkpoint
from mlxlab.growth.carry_over import ModelChange, carry_over
from mlxlab.growth.plan import changed_node, plan
from mlxlab.models.build import Architecture, build_model
from mlxlab.models.layers import named_parameters
from mlxlab.training.optim.optimizers import AVERAGE, TRAINED, EMAOptimizer, adamw, flatten_arrays, swap_weights
from support.checkpoints import state_at

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
    "quantization": {
        "_target_": "mlxlab.models.options.Quantization",
        "bits": None,
        "group_size": 32,
        "mode": "affine",
        "skip": [],
    },
}
LORA = {"_target_": "mlxlab.models.options.LoRA", "rank": 2, "alpha": 3.0}
FORMS = {
    "plain": {},
    "lora": {"adapter": LORA},
    "qlora": {"adapter": LORA, "quantization": NODE["quantization"] | {"bits": 8}},
}
PROJECTIONS = 7  # of a layer, all adapted
NORMS = 2
TOKENS = mx.array([[3, 5, 7, 30, 2, 1]])


def build(architecture, seed=None):
    model = build_model(architecture.node, kind="language_modelling", vocab_size=architecture.vocab_size, seed=seed)
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
        noisy = {}
        for name, array in sorted(arrays.items()):
            change = mx.array(rng.uniform(0.01, 0.1, array.shape).astype(np.float32))
            noisy[name] = array + change if array.dtype == mx.float32 and "scales" not in name else array
        return noisy

    model = build(architecture, seed=1)
    optimizer = {
        name: mx.array(9, array.dtype) if name.endswith("step") else array
        for name, array in noise(optimizer_of(model, ema)).items()
    }
    weights, optimizer = swap_weights(noise(named_parameters(model)), optimizer, AVERAGE, TRAINED)
    state = state_at(9) | {"architecture": architecture.node, "vocab_size": architecture.vocab_size}
    return Checkpoint(Path("step-00000009"), 9, weights, optimizer, state)


def resume(checkpoint, changes, vocab_size=40, *, ema=False, by_shape=False):
    before = Architecture(checkpoint.state["architecture"], checkpoint.state["vocab_size"])
    operations, after = plan(before, changed_node(before.node, before.node, before.node | changes), vocab_size)
    change = ModelChange(before, operations, after, lambda each: named_parameters(build(each)), seed=4)
    model = build(after, seed=4)
    return carry_over(checkpoint, change, named_parameters(model), optimizer_of(model, ema), by_shape=by_shape)


def logits(checkpoint, weights=None):
    model = build(Architecture(checkpoint.state["architecture"], checkpoint.state["vocab_size"]))
    model.load_weights(list((weights or checkpoint.weights).items()))
    return np.array(model(TOKENS, mx.ones_like(TOKENS)))[..., :40]


def counts(carried):
    weights = {kind: len(names) for kind, names in carried.report.as_json().items()}
    return weights, {kind: len(names) for kind, names in carried.optimizer.as_json().items() if names}


@pytest.fixture(scope="module")
def checkpoints():
    return {name: trained(Architecture(NODE | form, 40)) for name, form in FORMS.items()}


WIDER, DEEPER = {"intermediate_size": 96}, {"num_layers": 3}
PLAIN_LAYER = PROJECTIONS + NORMS
MATRIX = {
    ("plain", "wider"): ({"matched": 14, "grown": 6}, {"by path": 14, "by map": 6}),
    ("plain", "deeper"): ({"matched": 11, "grown": 18}, {"by path": 11, "by map": 16, "fresh": 2}),
    ("plain", "vocabulary"): ({"matched": 19, "grown": 1}, {"by path": 19, "by map": 1}),
    ("lora", "wider"): ({"matched": 36, "grown": 12}, {"by path": 22, "by map": 6}),
    ("lora", "deeper"): ({"matched": 25, "grown": 46}, {"by path": 14, "by map": 26, "fresh": 2}),
    ("lora", "vocabulary"): ({"matched": 47, "grown": 1}, {"by path": 28}),
    ("qlora", "wider"): ({"matched": 54, "grown": 24}, {"by path": 22, "by map": 6}),
    ("qlora", "deeper"): ({"matched": 41, "grown": 74}, {"by path": 14, "by map": 26, "fresh": 2}),
    ("qlora", "vocabulary"): ({"matched": 75, "grown": 3}, {"by path": 28}),
}


@pytest.mark.parametrize(("form", "change"), MATRIX, ids="-".join)
def test_a_grown_model_computes_the_same_and_keeps_its_optimizer_state(checkpoints, form, change):
    old = checkpoints[form]
    carried = resume(old, {"wider": WIDER, "deeper": DEEPER}.get(change, {}), 44 if change == "vocabulary" else 40)
    assert counts(carried) == MATRIX[form, change]
    np.testing.assert_allclose(logits(carried.checkpoint), logits(old), atol=0.02 if form == "qlora" else 2e-5)
    for name in ("states.0.step", "states.1.step"):
        if name in carried.checkpoint.optimizer:
            assert carried.checkpoint.optimizer[name].item() == 9

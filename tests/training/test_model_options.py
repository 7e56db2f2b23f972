"""Options of models and adapters: runs resume exactly, train what they should, and every step is the plain one."""

from functools import partial

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map

from mlxlab.models.adapters.freeze import trainable_names
from mlxlab.models.adapters.lora import LoRALayer
from mlxlab.models.build import build_model
from mlxlab.training.checkpointer import Checkpointer, final_state_digest
from mlxlab.training.steps.optimized import OptimizedStep
from mlxlab.training.steps.step import PlainStep
from support.models import (
    OPTIMIZED_STEP,
    RandomBatches,
    assert_close,
    assert_same,
    fit,
    fit_in,
    make_run,
    make_trainer,
    weights_of,
)

SIZES = {"hidden_size": 16, "num_layers": 2, "num_heads": 4, "intermediate_size": 24}
SIZES["dropout"] = 0.1
SCALING = {"_target_": "mlxlab.models.rope.Llama3Scaling", "original_max_position_embeddings": 4}
DECODER = {"_target_": "mlxlab.models.transformer.Transformer", **SIZES, "num_kv_heads": 2}
ENCODER = {"_target_": "mlxlab.models.bert.Bert", **SIZES}
LOCAL = {"position_embedding": "rope", "mlp_type": "geglu", "pre_norm": True, "bias": False}
LOCAL |= {"num_token_types": 0, "first_attention_norm": False, "global_attention_every": 2}
LOCAL |= {"attention_window": 1, "local_rope_theta": 100.0, "pooling": "first"}
GROUPED = {"qk_norm": True, "attention_bias": "qkv", "head_dim": 6, "rope_scaling": SCALING}
NODES = {
    "decoder": DECODER | GROUPED,
    "decoder with all biases": DECODER | {"attention_bias": "all"},
    "encoder": ENCODER | {"num_token_types": 1, "pooling": "mean"},
    "encoder of local attention": ENCODER | LOCAL,
}
LORA = {"_target_": "mlxlab.models.options.LoRA", "rank": 2}
TRAINED = {
    "all": {},
    "adapters": {"adapter": LORA | {"train": ["layers.1.feed_forward_norm"]}},
    "unfrozen": {"freeze": ["layers.0.*", "embedding"]},
}

QUICK = dict(zip(NODES, ["adapters", "all", "unfrozen", "adapters"], strict=True))
PAIRS = [
    pytest.param(name, trained, marks=[] if QUICK[name] == trained else pytest.mark.fault_injection)
    for name in NODES
    for trained in TRAINED
]


def train(node, folder, *, stop_at=None, resume=False, **changes):
    """(weights before, the run) of an epoch of 3 steps, or of the rest of it."""
    model = build_model(node, kind="classification", num_classes=2, vocab_size=20, seed=0)
    before = weights_of(model)
    run = make_run(model, RandomBatches(rows=12))
    options = {"stop_at": stop_at, "resume": resume, "every_steps": 2}
    return before, fit_in(folder, make_trainer(epochs=1, **changes), run, **options)


@pytest.mark.parametrize(("name", "trained"), PAIRS)
def test_a_resumed_run_ends_in_the_same_state_and_changes_only_what_it_trains(
    tmp_path, name, trained
):
    node = NODES[name] | TRAINED[trained]
    before, whole = train(node, tmp_path / "whole")
    train(node, tmp_path, stop_at=2)
    _, resumed = train(node, tmp_path, resume=True)
    assert final_state_digest(resumed.state) == final_state_digest(whole.state)
    names = trainable_names(whole.model)
    for path, weight in weights_of(whole.model).items():
        np.testing.assert_array_equal(weights_of(resumed.model)[path], weight, err_msg=path)
        # The key's bias moves all scores of a query alike: softmax does not see it.
        assert path.endswith("key.bias") or np.array_equal(weight, before[path]) == (
            path not in names
        ), path


@pytest.mark.fault_injection  # compiling takes seconds
@pytest.mark.parametrize("name", NODES)
def test_a_compiled_step_is_the_plain_one(tmp_path, name):
    node = NODES[name] | {"dropout": 0.0}
    plain, compiled = (
        weights_of(train(node, tmp_path, step=partial(step, **options))[1].model)
        for step, options in (
            (PlainStep, {"max_grad_norm": 1.0}),
            (OptimizedStep, OPTIMIZED_STEP | {"compile": "always"}),
        )
    )
    assert_close(compiled, plain, atol=1e-5)


STEPS = {
    "micro-batches": {"accumulate": 2, "retry_on_oom": True},
    "checkpointing": {"activation_checkpointing": True},
    "bfloat16": {"dtype": "bfloat16", "allow_slow_dtype": True},
    "compiled": {"compile": "always"},
}
COMPILED = [pytest.param("compiled", marks=pytest.mark.fault_injection)]  # 5 s


def adapted(dora=False):
    node = DECODER | {"num_kv_heads": None, "num_layers": 1, "dropout": 0.0}
    node["adapter"] = LORA | {"dora": dora, "train": ["attention_norm"]}
    return build_model(node, kind="classification", num_classes=2, vocab_size=20, seed=0)


def trained(step, dora=False, **changes):
    """Weights before and after a fit, and the names of those that it trains."""
    model = adapted(dora)
    before = weights_of(model)
    fit(make_trainer(step=step, epochs=1, **changes), make_run(model))
    return before, weights_of(model), trainable_names(model)


@pytest.mark.parametrize("name", [*list(STEPS)[:3], *COMPILED])
def test_only_adapters_move_and_every_step_is_the_plain_one(name):
    before, plain, names = trained(partial(PlainStep, max_grad_norm=1.0))
    _, after, _ = trained(partial(OptimizedStep, **OPTIMIZED_STEP | STEPS[name]))
    for path, weight in after.items():
        assert np.array_equal(weight, before[path]) == (path not in names), path
    assert_close(after, plain, atol=0.02 if name == "bfloat16" else 1e-5)
    assert all(weight.dtype == np.float32 for weight in after.values())


def test_dora_and_the_average_of_adapters_train():
    before, after, names = trained(partial(PlainStep, max_grad_norm=1.0), dora=True, ema_decay=0.9)
    moved = {path for path, weight in after.items() if not np.array_equal(weight, before[path])}
    assert moved == set(names)


@pytest.mark.usefixtures("mlx_kernels")
def test_the_frozen_weights_are_narrow_where_the_trained_ones_are(monkeypatch):
    """A product of float32 and bfloat16 would be float32: nothing would be saved."""
    dtypes, call = [], LoRALayer.__call__

    def recorded(layer, x):
        out = call(layer, x)
        dtypes.append((layer.base.weight.dtype, out.dtype))
        return out

    monkeypatch.setattr(LoRALayer, "__call__", recorded)
    step = partial(OptimizedStep, **OPTIMIZED_STEP | STEPS["bfloat16"])
    fit(make_trainer(step=step, max_steps=1), make_run(adapted()))
    assert dtypes[0] == (mx.bfloat16, mx.bfloat16)


def test_a_rollback_restores_adapters_and_frozen_weights(tmp_path):
    run = make_run(adapted())
    checkpointer = Checkpointer(every_steps=None, keep=1, background=True, folder=tmp_path)
    fit(make_trainer(epochs=1), run, checkpointer=checkpointer)
    saved = weights_of(run.model)
    run.model.update(tree_map(lambda leaf: leaf + 1, run.model.parameters()))
    run.state.restore(checkpointer.load_last())
    assert_same(weights_of(run.model), saved)
    assert len(list((tmp_path / "base").iterdir())) == 1

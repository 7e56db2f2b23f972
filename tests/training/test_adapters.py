"""Training with adapters: whatever the step, only they move, and the result is that of the plain step."""

from functools import partial

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map

from mlxlab.models.adapters.freeze import trainable_names
from mlxlab.models.build import build_model
from mlxlab.training.checkpointer import Checkpointer
from mlxlab.training.steps.optimized import OptimizedStep
from mlxlab.training.steps.step import PlainStep
from support.models import OPTIMIZED_STEP, assert_same, fit, make_run, make_trainer, weights_of

STEPS = {
    "micro-batches": {"accumulate": 2, "retry_on_oom": True},
    "checkpointing": {"activation_checkpointing": True},
    "bfloat16": {"dtype": "bfloat16", "allow_slow_dtype": True},
    "compiled": {"compile": "always"},
}
COMPILED = [pytest.param("compiled", marks=pytest.mark.fault_injection)]  # 5 s
SIZES = {
    "hidden_size": 16,
    "num_layers": 1,
    "num_heads": 4,
    "intermediate_size": 24,
    "dropout": 0.0,
}


def adapted(dora=False):
    adapter = {
        "_target_": "mlxlab.models.options.LoRA",
        "rank": 2,
        "dora": dora,
        "train": ["attention_norm"],
    }
    node = {"_target_": "mlxlab.models.transformer.Transformer", **SIZES, "adapter": adapter}
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
        np.testing.assert_allclose(
            weight, plain[path], atol=0.02 if name == "bfloat16" else 1e-5, err_msg=path
        )
    assert all(weight.dtype == np.float32 for weight in after.values())


def test_dora_and_the_average_of_adapters_train():
    before, after, names = trained(partial(PlainStep, max_grad_norm=1.0), dora=True, ema_decay=0.9)
    moved = {path for path, weight in after.items() if not np.array_equal(weight, before[path])}
    assert moved == set(names)


@pytest.mark.usefixtures("mlx_kernels")
def test_the_frozen_weights_are_narrow_where_the_trained_ones_are():
    """A product of float32 and bfloat16 would be float32: nothing would be saved."""
    dtypes = []

    model = adapted()
    layer = model.backbone.layers[0].attention.query
    kind = type(layer)
    layer.__class__ = type(
        "Recorded", (kind,), {"__call__": lambda self, x: _record(self, x, kind, dtypes)}
    )
    fit(
        make_trainer(
            step=partial(OptimizedStep, **OPTIMIZED_STEP | STEPS["bfloat16"]), max_steps=1
        ),
        make_run(model),
    )
    assert dtypes[0] == (mx.bfloat16, mx.bfloat16)


def _record(layer, x, kind, dtypes):
    out = kind.__call__(layer, x)
    dtypes.append((layer.base.weight.dtype, out.dtype))
    return out


def test_a_rollback_restores_adapters_and_frozen_weights(tmp_path):
    run = make_run(adapted())
    checkpointer = Checkpointer(every_steps=None, keep=1, background=True, folder=tmp_path)
    fit(make_trainer(epochs=1), run, checkpointer=checkpointer)
    saved = weights_of(run.model)
    run.model.update(tree_map(lambda leaf: leaf + 1, run.model.parameters()))
    run.state.restore(checkpointer.load_last())
    assert_same(weights_of(run.model), saved)
    assert len(list((tmp_path / "base").iterdir())) == 1

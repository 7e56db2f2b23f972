"""The optimized step: with every memory and speed option, the result is that of the plain step."""

import sys
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlxlab.data.batch import Batch
from mlxlab.models.bert import Bert
from mlxlab.models.cnn_hybrid import CnnHybrid
from mlxlab.models.model import Model, build_head
from mlxlab.models.transformer import Transformer
from mlxlab.training.device_batch import DeviceBatch, to_device
from mlxlab.training.losses.loss import CrossEntropyLoss, cross_entropy
from mlxlab.training.steps import optimized
from mlxlab.training.steps.optimized import OptimizedStep
from mlxlab.training.steps.step import PlainStep
from support.models import (
    OPTIMIZED_STEP,
    FunctionLoss,
    NoOpCallback,
    RandomBatches,
    assert_close,
    assert_same,
    fit,
    make_trainer,
    step_scalars,
    weights_of,
)

SETTINGS = OPTIMIZED_STEP  # test_compile.py has the compiled step
SHAPE = {"vocab_size": 20, "hidden_size": 16, "num_layers": 2, "num_heads": 2}
SHAPE |= {"intermediate_size": 24, "dropout": 0.2}


def small_model(family: str, dropout: float = 0.2) -> Model:
    mx.random.seed(0)
    shape = SHAPE | {"dropout": dropout}
    if family == "cnn_hybrid":
        shape |= {"kernel_sizes": [2, 3], "num_filters": 4, "dilations": [1, 2]}
        shape |= {"branch_dropout": dropout}
    backbone = {"bert": Bert, "cnn_hybrid": CnnHybrid, "transformer": Transformer}[family](**shape)
    head = build_head(backbone, kind="classification", num_classes=2, dropout=dropout)
    model = Model(backbone, head)
    mx.eval(model.parameters())
    model.train()
    return model


def uneven_batch(rows: int = 7) -> DeviceBatch:
    """Rows of different length and weight, one of weight 0."""
    batch = RandomBatches().batch(np.arange(rows))
    mask = (np.arange(6) < np.arange(1, rows + 1)[:, None] % 6 + 1).astype(np.int32)
    weights = np.linspace(0, 3, rows).astype(np.float32)
    return to_device(
        batch._replace(
            segment_ids=mask, loss_weights=weights, aux={"teacher": np.ones((rows, 2), np.float32)}
        )
    )


def take_steps(
    model: nn.Module, step: Any = OptimizedStep, steps: int = 2, rate: float = 0.1, **settings: Any
) -> tuple:
    """The metrics of the last of `steps` steps, and the weights after it."""
    optimizer = optim.SGD(rate, momentum=0.9)
    optimizer.init(model.trainable_parameters())
    settings = SETTINGS | settings if step is OptimizedStep else {"max_grad_norm": 1.0}
    run_step = step(**settings, model=model, loss=CrossEntropyLoss(0.1), optimizer=optimizer)
    for number in range(steps):
        mx.random.seed(number)
        metrics = run_step(uneven_batch())
    return metrics, weights_of(model)


@pytest.mark.parametrize("family", ["bert", "cnn_hybrid", "transformer"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_step_is_bitwise_that_of_the_plain_step_also_with_activation_checkpointing(
    family, checkpointing
):
    plain, weights = take_steps(small_model(family), PlainStep)
    metrics, actual = take_steps(small_model(family), activation_checkpointing=checkpointing)
    assert_same(actual, weights)
    assert step_scalars(metrics) == step_scalars(plain)


@pytest.mark.parametrize("accumulate", [2, 3, 7, 50])
def test_any_number_of_micro_batches_gives_the_step_of_the_full_batch(accumulate):
    full, weights = take_steps(small_model("bert", dropout=0.0))
    metrics, actual = take_steps(small_model("bert", dropout=0.0), accumulate=accumulate)
    assert_close(actual, weights, atol=1e-6)
    assert step_scalars(metrics) == pytest.approx(step_scalars(full), rel=1e-5)
    assert_close(metrics.per_example, full.per_example, atol=1e-6)


class Wide(nn.Module):
    """A model whose memory grows with the rows: one wide hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.up, self.down = (
            nn.Embedding(20, 8),
            nn.Linear(8, 4096),
            nn.Linear(4096, 2),
        )

    def __call__(self, tokens: mx.array, mask: mx.array) -> mx.array:
        return self.down(mx.tanh(self.up(self.embedding(tokens).mean(axis=1))))


@pytest.mark.parametrize(
    "settings", [None, {}, {"accumulate": 2}, {"activation_checkpointing": True}]
)
def test_a_step_is_read_from_the_device_once(monkeypatch, settings):
    """Each read waits for the device. Evaluations and log lines read more, but not every step has one."""
    reads, in_each_step = [], []

    def counted(read):
        def count(x, *args, **kwargs):
            reads.append(x)
            return read(x, *args, **kwargs)

        return count

    monkeypatch.setattr(np, "array", counted(np.array))
    for name in ("item", "tolist", "__float__", "__int__", "__bool__"):
        monkeypatch.setattr(mx.array, name, counted(getattr(mx.array, name)))

    class CountReads(NoOpCallback):
        def on_step(self, context, state, result):
            in_each_step.append(sum(isinstance(x, mx.array) for x in reads))
            reads.clear()

    step = partial(PlainStep, max_grad_norm=1.0)
    if settings is not None:
        step = partial(OptimizedStep, **SETTINGS | settings)
    trainer = make_trainer(step=step, epochs=None, max_steps=5, eval_every=100, log_every=100)
    fit(trainer, callbacks=[CountReads()])
    assert in_each_step[1:4] == [1, 1, 1]


def test_one_micro_batch_is_in_memory_at_a_time():
    rows = 1024
    tokens, zeros = np.zeros((rows, 4), np.int32), np.zeros(rows, np.int32)
    batch = Batch(tokens, tokens + 1, zeros, np.ones(rows, np.float32), np.arange(rows))

    def peak(accumulate: int) -> int:
        model, optimizer = Wide(), optim.SGD(0.1)
        optimizer.init(model.trainable_parameters())
        parts = {"model": model, "loss": CrossEntropyLoss(0.0), "optimizer": optimizer}
        step = OptimizedStep(**SETTINGS | {"accumulate": accumulate}, **parts)
        on_device = to_device(batch)
        mx.eval(model.parameters(), on_device)
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        step(on_device)
        return mx.get_peak_memory() - before

    assert peak(16) < peak(1) / 8


BF16 = {"dtype": "bfloat16", "allow_slow_dtype": True}


def test_bfloat16_steps_are_close_to_float32_and_apply_changes_below_its_resolution():
    wide, weights = take_steps(small_model("transformer", 0.0))
    narrow, actual = take_steps(small_model("transformer", 0.0), **BF16)
    assert step_scalars(narrow)["loss"] == pytest.approx(step_scalars(wide)["loss"], rel=2e-2)
    moved = {name: np.abs(actual[name] - leaf).max() for name, leaf in weights.items()}
    assert 0 < max(moved.values()) < 5e-3
    before = weights_of(small_model("transformer", 0.0))
    _, slow = take_steps(small_model("transformer", 0.0), rate=1e-6, **BF16)
    assert any((slow[name] != leaf).any() for name, leaf in before.items())


@pytest.mark.usefixtures("mlx_kernels")
@pytest.mark.parametrize("family", ["bert", "cnn_hybrid", "transformer"])
def test_bfloat16_reaches_every_layer_and_the_loss_is_float32(family):
    seen = {}

    def spy(model: nn.Module, batch: DeviceBatch) -> mx.array:
        seen["weights"] = {leaf.dtype for _, leaf in tree_flatten(model.parameters())}
        logits = model(batch.tokens, batch.segment_ids)
        seen["logits"], values = logits.dtype, cross_entropy(logits, batch.targets)
        seen["values"] = values.dtype
        return values

    model = small_model(family)
    optimizer = optim.SGD(0.1)
    optimizer.init(model.trainable_parameters())
    OptimizedStep(**SETTINGS | BF16, model=model, loss=FunctionLoss(spy), optimizer=optimizer)(
        uneven_batch()
    )
    assert seen == {"weights": {mx.bfloat16}, "logits": mx.bfloat16, "values": mx.float32}


@pytest.mark.usefixtures("mlx_kernels")
def test_bfloat16_on_a_linux_cpu_warns_and_computes_in_float32(monkeypatch, caplog):
    monkeypatch.setattr(sys, "platform", "linux")
    _, actual = take_steps(small_model("bert"), dtype="bfloat16")
    if mx.default_device() == mx.Device(mx.cpu):
        [record] = caplog.records
        assert "allow_slow_dtype" in record.getMessage()
        _, weights = take_steps(small_model("bert"))
        assert all((actual[name] == leaf).all() for name, leaf in weights.items())


def test_a_step_evaluated_in_chunks_is_bitwise_the_same(monkeypatch):
    _, weights = take_steps(small_model("bert"), accumulate=2)
    monkeypatch.setattr(optimized, "CHUNK_ELEMENTS", 300)
    evaluated = []
    real = mx.eval
    monkeypatch.setattr(
        optimized.mx, "eval", lambda *trees: evaluated.append(trees) or real(*trees)
    )
    _, actual = take_steps(small_model("bert"), accumulate=2)
    assert len(evaluated) > 20
    assert_same(actual, weights)

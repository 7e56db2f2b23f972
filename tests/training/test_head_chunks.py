"""The head of a language model in chunks of tokens: the same losses and gradients, with less memory."""

from functools import partial

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest

from mlxlab.backend.ops.cross_entropy import cross_entropy
from mlxlab.models.adapters.lora import LoRALayer
from mlxlab.models.bert import Bert
from mlxlab.models.model import Model, build_head
from mlxlab.models.options import LoRA
from mlxlab.models.transformer import Transformer
from mlxlab.training import head_chunks
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.head_chunks import (
    TARGET_INDEX,
    ChunkedLoss,
    chunk_size,
    token_losses,
    with_target_index,
)
from mlxlab.training.losses.loss import CrossEntropyLoss, FocalLoss
from mlxlab.training.optim.optimizers import flatten_arrays
from mlxlab.training.steps.optimized import OptimizedStep
from mlxlab.training.steps.step import PlainStep, weighted_sum
from support.models import OPTIMIZED_STEP, assert_close

ROWS, LENGTH, VOCABULARY = 3, 7, 90
FAMILIES = {
    "tied": partial(Transformer, num_heads=2),
    "untied": partial(Transformer, num_heads=2, tie_embeddings=False),
    "masked": partial(Bert, num_heads=2, dropout=0.0),
}


def language_model(family: str, vocab_size: int = VOCABULARY) -> Model:
    mx.random.seed(0)
    backbone = FAMILIES[family](
        hidden_size=8, num_layers=1, intermediate_size=8, vocab_size=vocab_size
    )
    model = Model(backbone, build_head(backbone, kind="language_modelling"))
    mx.eval(model.parameters())
    return model


def a_batch(rows: int = ROWS, length: int = LENGTH, vocab_size: int = VOCABULARY) -> DeviceBatch:
    tokens, targets = (
        mx.random.randint(0, vocab_size, (rows, length), key=mx.random.key(seed)).astype(mx.int32)
        for seed in (1, 2)
    )
    weights = mx.random.uniform(shape=(rows, length), key=mx.random.key(3))
    return DeviceBatch(tokens, mx.ones_like(tokens), targets, weights, mx.arange(rows))


def loss_and_gradients(model: Model, loss) -> tuple[float, dict[str, mx.array]]:
    batch = a_batch()
    (total, *_), gradients = nn.value_and_grad(model, lambda: weighted_sum(loss, model, batch))()
    return total.item(), flatten_arrays(gradients)


@pytest.mark.parametrize("chunk", [1, 4, 20])
@pytest.mark.parametrize(
    "loss", [CrossEntropyLoss(0.1), FocalLoss(None, 2.0, 0.0)], ids=["smooth", "focal"]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_all_logits_at_once(family, loss, chunk):
    model = language_model(family)
    expected, gradients = loss_and_gradients(model, loss)
    actual, chunked = loss_and_gradients(model, ChunkedLoss(loss, chunk))
    assert actual == pytest.approx(expected, rel=1e-6)
    assert_close(chunked, gradients, rtol=1e-4, atol=2e-6)


def add_adapter(model: Model, dropout: float = 0.0) -> None:
    layer = LoRALayer(model.head.out, LoRA(rank=2, dropout=dropout))
    layer.base.freeze()
    layer.lora_a, layer.lora_b = (
        mx.random.normal(array.shape, key=mx.random.key(5))
        for array in (layer.lora_a, layer.lora_b)
    )
    model.head.out = layer


@pytest.mark.parametrize("has_adapter", [False, True])
def test_a_frozen_head_passes_the_gradient_on_and_an_adapter_of_it_gets_its_own(has_adapter):
    model = language_model("untied" if has_adapter else "tied")
    if has_adapter:
        model.freeze()
        add_adapter(model)
    else:
        model.backbone.embedding.freeze()
    expected, chunked = (
        loss_and_gradients(model, loss)[1]
        for loss in (CrossEntropyLoss(0.0), ChunkedLoss(CrossEntropyLoss(0.0), 5))
    )
    assert set(chunked) == set(expected)
    assert not has_adapter or set(expected) == {"head.out.lora_a", "head.out.lora_b"}
    assert_close(chunked, expected, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"accumulate": 2},
        {"activation_checkpointing": True},
        pytest.param({"compile": "always"}, marks=pytest.mark.fault_injection),
    ],
)
def test_a_step_in_chunks_is_that_of_all_logits_at_once(settings, share):
    def weights_after(head_chunk):
        model, batch = language_model("tied"), masked_out(a_batch(), share)
        optimizer = optim.SGD(0.1)
        optimizer.init(model.trainable_parameters())
        keys = OPTIMIZED_STEP | settings | {"head_chunk": head_chunk}
        parts = {"model": model, "loss": CrossEntropyLoss(0.0), "optimizer": optimizer}
        step = PlainStep(1.0, **parts) if head_chunk is None else OptimizedStep(**keys, **parts)
        results = [step(batch) for _ in range(2)]
        return results[-1].loss, flatten_arrays(model.parameters())

    (loss, weights), (expected, reference) = weights_after(4), weights_after(None)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert_close(weights, reference, rtol=1e-3, atol=1e-4)


def masked_out(batch: DeviceBatch, share: float) -> DeviceBatch:
    """The batch with a target at this share of the tokens, and a bad one elsewhere."""
    has_target = mx.random.uniform(shape=batch.targets.shape, key=mx.random.key(4)) < share
    return batch._replace(loss_weights=mx.where(has_target, batch.loss_weights, 0.0))


@pytest.mark.parametrize("chunk", [None, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_of_tokens_without_a_target_are_not_computed_and_change_nothing(
    family, chunk, monkeypatch
):
    model, batch = language_model(family), masked_out(a_batch(), 0.3)
    computed: list[int] = []
    logits = Model.logits
    monkeypatch.setattr(
        Model, "logits", lambda self, x: (computed.append(len(x)), logits(self, x))[1]
    )

    def gradients(loss, batch):
        (total, _, rows), leaves = nn.value_and_grad(
            model, lambda: weighted_sum(loss, model, batch)
        )()
        return total.item(), flatten_arrays({"rows": rows, "leaves": leaves})

    expected, reference = gradients(CrossEntropyLoss(0.1), batch)
    computed.clear()
    actual, selected = gradients(
        ChunkedLoss(CrossEntropyLoss(0.1), chunk), with_target_index(batch)
    )
    assert max(computed) <= (chunk or ROWS * LENGTH // 2)
    assert actual == pytest.approx(expected, rel=1e-6)
    assert_close(selected, reference, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_an_evaluation_computes_the_logits_of_targets_alone(share):
    model, batch = language_model("tied"), masked_out(a_batch(), share)
    logits = model(batch.tokens, batch.segment_ids)
    has_target = np.array(batch.loss_weights) > 0
    expected = np.array(cross_entropy(logits, batch.targets))
    actual = np.array(token_losses(model, batch))
    np.testing.assert_allclose(actual[has_target], expected[has_target], rtol=1e-6)
    assert np.count_nonzero(actual) <= ROWS * LENGTH // 2


def test_a_batch_has_one_of_few_numbers_of_selected_tokens_so_that_few_steps_are_traced():
    batch, sizes = a_batch(4, 100), set()
    for targets in range(401):
        weights = mx.array((np.arange(400) < targets).astype(np.float32)).reshape(4, 100)
        index = with_target_index(batch._replace(loss_weights=weights)).aux.get(TARGET_INDEX)
        sizes.add(None if index is None else index.size)
        if index is not None:
            assert set(range(targets)) <= set(np.array(index).tolist())
    assert sizes == {None, *range(50, 400, 50)}


def test_the_logits_of_all_tokens_are_never_held():
    model, batch = language_model("tied", 20_000), a_batch(4, 128, 20_000)

    def peak(chunk):
        loss = ChunkedLoss(CrossEntropyLoss(0.0), chunk)
        mx.eval(batch, model.parameters())
        mx.clear_cache()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        mx.eval(nn.value_and_grad(model, lambda: weighted_sum(loss, model, batch)[0])())
        return mx.get_peak_memory() - before

    all_logits = 4 * 4 * 128 * 20_000
    assert peak(None) > 1.5 * all_logits
    assert peak(16) < 0.4 * all_logits


def test_auto_leaves_small_logits_whole(monkeypatch):
    model, batch = language_model("tied"), a_batch()
    assert chunk_size(model, batch, "auto") is None
    monkeypatch.setattr(head_chunks, "MAX_BYTES", 4 * batch.tokens.size * VOCABULARY - 1)
    monkeypatch.setattr(head_chunks, "CHUNK_BYTES", 4 * 5 * VOCABULARY)
    assert chunk_size(model, batch, "auto") == 5
    assert chunk_size(model, batch, None) is None
    assert chunk_size(nn.Linear(2, 2), batch, "auto") is None

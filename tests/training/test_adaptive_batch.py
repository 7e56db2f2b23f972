"""The batch that follows the memory, by a probe with a script; and an update whose memory did not suffice."""

from functools import partial
from itertools import pairwise

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest

from mlxlab.callbacks.adaptive_batch import AdaptiveBatchSize
from mlxlab.checkpoint.store import Checkpoint
from mlxlab.data.loader import FixedBatchSize as Rows
from mlxlab.data.loader import make_loader
from mlxlab.data.wrappers import Prefetch
from mlxlab.training.checkpointer import final_state_digest, saved_arrays
from mlxlab.training.device_batch import to_device
from mlxlab.training.losses.loss import CrossEntropyLoss
from mlxlab.training.optim.schedules import linear
from mlxlab.training.steps.optimized import OptimizedStep
from support.models import (
    OPTIMIZED_STEP,
    NoOpCallback,
    RandomBatches,
    StopAt,
    assert_same,
    fit,
    make_model,
    make_run,
    make_trainer,
    step_scalars,
    weights_of,
)

SETTINGS = {"min": 2, "max": 32, "low": 0.5, "high": 0.85, "critical": 0.95}
SETTINGS |= {"interval": 2, "cooldown": 4, "budget": 1.0}


def data(rows: int = 300, size: int = 8, prefetch: int = 2) -> Prefetch:
    source, lengths = RandomBatches(rows), np.full(rows, 6)
    collate = lambda epoch, rows, _: source.batch(rows)  # noqa: E731
    return Prefetch(
        make_loader(lambda _: lengths, Rows(None), size, 3, collate, "", lengths), prefetch
    )


class Script:
    """A probe that returns these fractions of the budget in turn, then the last one again and again."""

    def __init__(self, *fractions: float) -> None:
        self.fractions = list(fractions)

    def __call__(self) -> float:
        return 1e9 * (self.fractions.pop(0) if len(self.fractions) > 1 else self.fractions[0])


def train(probe: Script, run=None, callbacks=(), **fit_settings):
    step = partial(OptimizedStep, **OPTIMIZED_STEP)
    schedule = partial(linear, warmup=0, final_lr_ratio=0.0)
    trainer = make_trainer(step=step, epochs=None, max_steps=24, log_every=1, schedule=schedule)
    adaptive = AdaptiveBatchSize(**SETTINGS, probe=probe)
    return fit(trainer, run or make_run(data=data()), [adaptive, *callbacks], **fit_settings)


class Sizes(NoOpCallback):
    """The rows of every batch."""

    def __init__(self) -> None:
        self.values: list[int] = []

    def on_step(self, context, state, result) -> None:
        self.values.append(len(result.batch.example_ids))


def test_the_loader_yields_the_sizes_of_the_rule_with_a_cooldown():
    sizes = Sizes()
    # One measurement before the first step, then one every second step.
    state = train(
        Script(0.3, 0.3, 0.3, 0.3, 0.6, 0.9, 0.97, 0.3, 0.3, 0.3), callbacks=[sizes]
    ).state
    assert state.progress.batch_sizes == [(0, 8), (4, 16), (10, 8), (12, 2), (16, 4), (20, 8)]
    at = dict(state.progress.batch_sizes)
    size = 0
    for step, rows in enumerate(sizes.values):
        size = at.get(step, size)
        assert rows == size, step
    logged = {
        step: line["data/batch_size"]
        for step, line in state.history.curve
        if "data/batch_size" in line
    }
    assert logged[4] == 16.0


@pytest.mark.parametrize(
    ("fraction", "size"),
    [(0.97, 4), (0.95, 4), (0.9, 8), (0.85, 8), (0.84, 16), (0.51, 16), (0.5, 32), (0.0, 32)],
)
def test_the_next_size_follows_the_used_fraction(fraction, size):
    rule = AdaptiveBatchSize(**SETTINGS | {"max": 64, "cooldown": 200})
    assert rule.next_size(16, fraction, age=200) == size
    assert rule.next_size(16, fraction, age=199) == min(size, 16)  # only growing has to wait


class Rates(Sizes):
    """The learning rate of every step, as the optimizer used it."""

    def on_step(self, context, state, result) -> None:
        self.values.append(state.optimizer.learning_rate.item())


def test_the_learning_rate_follows_the_examples_and_does_not_jump_with_the_size():
    used = Rates()
    state = train(Script(0.3, 0.3, 0.3, 0.3, 0.6, 0.97, 0.6), callbacks=[used]).state
    rates = [
        line["train/learning_rate"]
        for _, line in state.history.curve
        if "train/learning_rate" in line
    ]
    assert used.values == rates
    sizes, size, seen = dict(state.progress.batch_sizes), 8, 0
    assert len(sizes) > 2
    for step, rate in enumerate(rates):
        size = sizes.get(step, size)
        assert rate == pytest.approx(1e-2 * max(1 - seen / 8 / 24, 0), abs=1e-8)
        seen += size
    assert max(abs(a - b) for a, b in pairwise(rates)) <= 1e-2 * 16 / 8 / 24 + 1e-8


@pytest.mark.parametrize("stop", [1, 4, 7, 13])
def test_a_resumed_run_continues_with_its_batch_size(stop):
    fractions = (0.3, 0.3, 0.3, 0.3, 0.6, 0.9, 0.97, 0.3, 0.3, 0.3)
    uninterrupted = train(Script(*fractions)).state
    stopped = train(Script(*fractions), callbacks=[StopAt(stop)]).state
    saved = Checkpoint(None, stop, *saved_arrays(stopped), stopped.state_dict())
    remaining = Script(
        0.3, *fractions[1 + stop // 2 :]
    )  # the measurement at the start, then the remaining ones
    resumed = train(remaining, checkpoint=saved).state
    assert resumed.progress.batch_sizes == uninterrupted.progress.batch_sizes
    assert final_state_digest(resumed) == final_state_digest(uninterrupted)


class Short:
    """A loss that raises an allocation error above `rows` rows."""

    def __init__(self, rows: int, message: str = "[malloc] Unable to allocate 123 bytes.") -> None:
        self.rows, self.message, self.tried = rows, message, []

    def __call__(self, model, batch) -> mx.array:
        self.tried.append(len(batch.example_ids))
        if len(batch.example_ids) > self.rows:
            raise RuntimeError(self.message)
        return CrossEntropyLoss(0.0)(model, batch)


def step_with(
    loss, retry: bool = True, dropout: float = 0.0, **changes
) -> tuple[OptimizedStep, optim.Optimizer]:
    model = make_model(dropout=dropout)
    optimizer = optim.AdamW(1e-2)
    optimizer.init(model.trainable_parameters())
    settings = OPTIMIZED_STEP | {"retry_on_oom": retry} | changes
    step = OptimizedStep(**settings, model=model, loss=loss, optimizer=optimizer)
    return step, optimizer


def test_a_failed_allocation_repeats_the_step_with_half_the_micro_batch(caplog):
    batch = to_device(RandomBatches().batch(np.arange(20)))
    loss = Short(6)
    short, optimizer = step_with(loss)
    full, _ = step_with(CrossEntropyLoss(0.0))
    for _ in range(2):
        output, expected = short(batch), full(batch)
        assert step_scalars(output) == pytest.approx(step_scalars(expected), rel=1e-5)
    # The second step starts with the size that worked.
    assert loss.tried == [20, 10, 5, 5, 5, 5, 5, 5, 5, 5]
    assert optimizer.step.item() == 2
    for name, leaf in weights_of(short.model).items():
        np.testing.assert_allclose(leaf, weights_of(full.model)[name], atol=1e-6)
    assert "micro-batches of 5 rows" in caplog.text


def test_a_failed_attempt_does_not_change_the_random_numbers_of_the_next():
    batch = to_device(RandomBatches().batch(np.arange(20)))
    short, _ = step_with(Short(12), dropout=0.3)
    halves, _ = step_with(CrossEntropyLoss(0.0), dropout=0.3, accumulate=2)
    for step in (short, halves):
        original = step.gradient
        # It draws random numbers before it fails, as a forward pass does.
        step.gradient = lambda *args, original=original: (mx.random.uniform(), original(*args))[1]
        mx.random.seed(8)
        step(batch)
    assert_same(weights_of(short.model), weights_of(halves.model))


def test_other_errors_and_a_failure_with_one_row_are_raised():
    batch = to_device(RandomBatches().batch(np.arange(4)))
    for loss in (Short(2, "shapes do not fit"), Short(0)):
        step, _ = step_with(loss)
        with pytest.raises(RuntimeError):
            step(batch)
    step, _ = step_with(Short(2), retry=False)
    with pytest.raises(RuntimeError, match="malloc"):
        step(batch)

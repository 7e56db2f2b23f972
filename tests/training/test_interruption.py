"""A signal between micro-batches: the step counts as not begun, and a resumed run ends as an uninterrupted one."""

from functools import partial

import pytest

from mlxlab.checkpoint.store import CheckpointStore
from mlxlab.training.checkpointer import Checkpointer, final_state_digest
from mlxlab.training.losses.loss import CrossEntropyLoss
from mlxlab.training.steps.optimized import OptimizedStep
from support.models import (
    OPTIMIZED_STEP,
    RandomBatches,
    assert_same,
    fit,
    make_model,
    make_run,
    make_trainer,
    weights_of,
)

MICRO_BATCHES = 4
STEP = partial(OptimizedStep, **(OPTIMIZED_STEP | {"accumulate": MICRO_BATCHES}))


class SignalAt(CrossEntropyLoss):
    """SIGTERM arrives while the loss of some micro-batch is computed; the micro-batches after it are counted."""

    def __init__(self, micro_batch, run):
        super().__init__(0.0)
        self.left, self.run, self.later = micro_batch, run, 0

    def __call__(self, model, batch):
        self.later += self.left < 0
        if self.left == 0:
            self.run.control.stop_signal = 15
        self.left -= 1
        return super().__call__(model, batch)


def train(folder, *, signal_at=None, resume=False):
    run = make_run(make_model(dropout=0.3), RandomBatches(rows=24))
    loss = CrossEntropyLoss(0.0) if signal_at is None else SignalAt(signal_at, run)
    checkpoint = CheckpointStore(folder / "checkpoints").load() if resume else None
    folder.mkdir(exist_ok=True)
    saving = Checkpointer(every_steps=None, keep=2, background=False, folder=folder)
    fit(make_trainer(step=STEP, loss=loss), run, [], saving, checkpoint, seed=4)
    return run, loss


@pytest.mark.parametrize("micro_batch", [0, 1, 3, 5, 10])
def test_a_signal_ends_the_run_before_the_next_micro_batch_and_a_resume_is_exact(
    tmp_path, micro_batch
):
    expected, _ = train(tmp_path / "uninterrupted")
    run, loss = train(tmp_path / "run", signal_at=micro_batch)
    assert loss.later == 0
    assert run.control.stop_reason == "signal 15"
    assert run.state.progress.step == (micro_batch + 1) // MICRO_BATCHES
    saved = CheckpointStore(tmp_path / "run" / "checkpoints").load()
    assert saved.step == run.state.progress.step
    resumed, _ = train(tmp_path / "run", resume=True)
    assert final_state_digest(resumed.state) == final_state_digest(expected.state)
    assert_same(weights_of(resumed.model), weights_of(expected.model))


def test_the_checkpoint_of_an_interrupted_step_is_that_of_the_step_before(tmp_path):
    after, _ = train(
        tmp_path / "after", signal_at=MICRO_BATCHES - 1
    )  # in the last micro-batch: the step is finished
    interrupted, _ = train(tmp_path / "interrupted", signal_at=MICRO_BATCHES)
    assert final_state_digest(interrupted.state) == final_state_digest(after.state)

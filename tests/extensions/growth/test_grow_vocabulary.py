"""A run whose vocabulary grows: the data changes its ids at that step, also where the run is killed or rolled back."""

import numpy as np
import pytest

from mlxlab.callbacks.token_metrics import TokenMetrics
from mlxlab.data.batch import vocabulary_of
from mlxlab.extensions.growth.callback import GrowthSchedule
from mlxlab.models.build import Architecture, build_model
from mlxlab.training.callback import FitContext
from mlxlab.training.checkpointer import Checkpointer, NoCheckpointer, final_state_digest
from mlxlab.training.loop import TrainingLoop
from support.growth import SIZES, TARGETS
from support.models import NoOpCallback, Recorder, StopAt, make_trainer
from support.vocabulary import text_data

NODES = {
    "transformer": {"_target_": TARGETS["transformer"], **SIZES, "num_layers": 1},
    "bert": {"_target_": TARGETS["bert"], **SIZES, "num_layers": 1},
}
GROW = {"id": "all", "op": "grow_vocabulary", "when": {"or_steps": 4}, "then": "evaluate"}


class Ids(NoOpCallback):
    """Records the largest target of every step, and the size of the model's vocabulary after it."""

    def __init__(self):
        self.batches, self.sizes = [], []

    def on_step(self, context, state, result):
        if result.trained:
            self.batches.append(result.batch)
            self.sizes.append(state.architecture.vocab_size)


def train(folder, run_dir=None, callbacks=(), resume=False, model="transformer", prefetch=2):
    data = text_data(folder, size=10, masked=model == "bert", prefetch=prefetch)

    def build(architecture, seed=None):
        node, vocab_size = architecture
        return build_model(node, kind="language_modelling", vocab_size=vocab_size, seed=seed)

    if run_dir is not None:
        run_dir.mkdir(exist_ok=True)
    start = Architecture(NODES[model], 11)
    trainer = make_trainer(epochs=None, max_steps=9, eval_every=3, log_every=1, ema_decay=0.9)
    state = trainer.init_state(build(start, seed=0), data.train)
    state.architecture, state.new_model = start, build
    checkpointer = (
        NoCheckpointer() if run_dir is None else Checkpointer(None, 5, False, folder=run_dir)
    )
    context = FitContext("valid/bits_per_byte", Recorder())
    hooks = [TokenMetrics(), GrowthSchedule([GROW], "raise"), *callbacks]
    TrainingLoop(trainer, context, state, data.valid, data.task, hooks, checkpointer).run(
        checkpointer.load_last() if resume else None
    )
    return state, context.tracker.lines, data


@pytest.mark.parametrize("model", NODES)
def test_batches_have_the_ids_of_the_model_before_and_after(tmp_path, model):
    ids = Ids()
    state, lines, data = train(tmp_path, callbacks=[ids], model=model)
    full = text_data(tmp_path, masked=model == "bert")
    forward = data.tokenizer.vocabulary.forward
    assert ids.sizes == [11] * 3 + [full.tokenizer.vocab_size] * 6
    steps = iter(full.train)
    for number, batch in enumerate(ids.batches):
        expected = next(steps, None)
        if expected is None:
            steps = iter(full.train)
            expected = next(steps)
        targets = forward[expected.targets] if number < 4 else expected.targets
        np.testing.assert_array_equal(
            batch.targets * batch.segment_ids, targets * batch.segment_ids
        )
    assert vocabulary_of(state.data) is None
    by_step = {
        name: {step: metrics[name] for step, metrics in lines if name in metrics}
        for name in ("valid/bits_per_byte", "growth/output_change", "data/rare_share")
    }
    assert [*by_step["valid/bits_per_byte"]] == [3, 4, 6, 9]
    assert by_step["growth/output_change"][4] < 1e-4
    assert [*by_step["data/rare_share"]] == [1, 2, 3, 4]
    assert 0 < max(by_step["data/rare_share"].values()) < 0.6


@pytest.mark.parametrize("model", NODES)
@pytest.mark.parametrize("step", [3, 4, 5])
def test_a_run_killed_before_at_or_after_the_moment_resumes_bitwise(tmp_path, model, step):
    expected, _, _ = train(tmp_path, model=model)
    train(tmp_path, tmp_path / "run", [StopAt(step)], model=model, prefetch=0)
    resumed, _, _ = train(tmp_path, tmp_path / "run", resume=True, model=model)
    assert final_state_digest(resumed) == final_state_digest(expected)
    assert dict(resumed.history.evaluations) == dict(expected.history.evaluations)


def test_a_rollback_to_before_the_moment_goes_back_to_the_ids_of_that_model(tmp_path):
    class Rollback(NoOpCallback):
        """Loads the checkpoint of step 3 at step 6, as the loop does after steps that are not finite."""

        def on_step(self, context, state, result):
            if state.progress.step == 6:
                state.restore(Checkpointer(None, 5, False, folder=tmp_path / "run").load_last())
                context.control.rebuild = True

    ids = Ids()
    state, _, data = train(tmp_path, callbacks=[StopAt(3)], run_dir=tmp_path / "run")
    state, _, data = train(tmp_path, callbacks=[ids, Rollback()])
    assert ids.sizes[5] == data.tokenizer.original.vocab_size
    assert ids.sizes[6] == 11
    assert max(batch.targets.max() for batch in ids.batches[6:]) == 10
    assert vocabulary_of(state.data) is data.tokenizer.vocabulary

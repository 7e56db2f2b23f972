"""The checkpoints of a fork: the best one of the other run comes with it, or no longer counts."""

import shutil
from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlxlab.checkpoint.state import History, empty_metadata
from mlxlab.checkpoint.store import CheckpointStore
from mlxlab.run.resume.load import prepare_checkpoints
from mlxlab.run.resume.start import Start
from mlxlab.training.distributed.process_group import ProcessGroup
from support.checkpoints import state_at


def adapted_model():
    """A layer whose adapter alone is trained."""
    model = nn.Module()
    model.layer = nn.Linear(4, 1, bias=False)
    model.layer.lora_a = mx.zeros(3)
    model.layer.freeze(keys="weight")
    return model


MODEL = adapted_model()
METADATA = empty_metadata() | {"uid": "fork"}


def history(*evaluations):
    result = History()
    for step, loss in evaluations:
        metrics = {"valid/loss": loss}
        result.add_metrics(step, metrics | {"train/loss": 9.0})
        result.add_evaluation(step, metrics, "valid/loss")
    return result


@pytest.fixture
def source(tmp_path):
    """The checkpoints of a run with its best evaluation at step 2, at step 4."""
    store = CheckpointStore(tmp_path / "source" / "checkpoints")
    evaluations = [(2, 0.25), (4, 0.5)]
    for count, (step, _) in enumerate(evaluations, 1):
        state = state_at(step) | {"history": history(*evaluations[:count])}
        weights, frozen = (
            {"layer.lora_a": mx.full((3,), float(step))},
            {"layer.weight": mx.arange(4.0)[None]},
        )
        store.save(step, weights, {"m": mx.zeros(3)}, state, frozen, best_step=2)
    return store


def fork(source, folder):
    context = SimpleNamespace(run_dir=folder, group=ProcessGroup())
    session = SimpleNamespace(context=SimpleNamespace(metadata=METADATA), model=MODEL)
    checkpoint = prepare_checkpoints(source.load(), Start({}), context, session)
    shutil.rmtree(source.folder.parent)
    own = CheckpointStore(folder / "checkpoints")
    assert own.load("last").state == checkpoint.state | {"base": own.load("last").state["base"]}
    return checkpoint.state["history"], own


def test_a_fork_begins_with_its_start_and_the_best_checkpoint_of_the_other_run(source, tmp_path):
    history, own = fork(source, tmp_path / "fork")
    assert (history.best, history.best_step) == (0.25, 2)
    best, last = own.load("best"), own.load("last")
    assert [(each.step, each.weights["layer.lora_a"].tolist()) for each in (best, last)] == [
        (2, [2.0] * 3),
        (4, [4.0] * 3),
    ]
    assert (best.state["metadata"]["uid"], last.state["metadata"]["uid"]) == ("", "fork")
    assert last.weights["layer.weight"].tolist() == [[0.0, 1.0, 2.0, 3.0]]
    assert len([*(tmp_path / "fork" / "base").iterdir()]) == 1


def test_a_best_checkpoint_that_is_gone_gives_way_to_the_start(source, tmp_path, caplog):
    caplog.set_level("INFO")
    shutil.rmtree(source.folder / "step-00000002")
    history, own = fork(source, tmp_path / "fork")
    assert (history.best, history.best_step, history.best_metrics) == (0.5, 4, {"valid/loss": 0.5})
    assert own.load("best").step == 4
    assert "the best evaluation, of step 2, has no checkpoint in" in caplog.text
    assert "that of step 4 counts instead" in caplog.text


def test_without_an_evaluation_at_the_start_there_is_no_best():
    late = history((2, 0.25)).without_best(4)
    assert (late.best, late.best_step, late.best_metrics) == (None, 0, {})
    assert history((2, 0.25), (4, float("nan"))).without_best(4).best is None

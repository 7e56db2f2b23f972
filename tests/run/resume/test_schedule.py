"""What limits a resumed run: a schedule that has decayed restarts for the added steps, and epochs stay those that it began with."""

import shutil

import mlx.core as mx
import pytest

from mlxlab.checkpoint.store import CheckpointStore
from mlxlab.past_runs.collect_record import limit_of
from mlxlab.training.optim.schedules import cosine
from support.processes import final_state, succeed_here, tiny_overrides

SETTINGS = tiny_overrides("trainer.max_steps=4", "trainer.eval_every=4", "trainer.log_every=1")
SETTINGS += ["trainer.learning_rate=1e-3", "trainer.schedule.warmup=2", "checkpointing.keep=9"]
SETTINGS += ["checkpointing.every_steps=2"]
WHOLE = [cosine(2, 0.0, peak=1e-3, steps=4)(mx.array(step)).item() for step in range(4)]


def train(folder, *overrides):
    return succeed_here(*overrides, f"hydra.run.dir={folder}")


def rates(folder):
    curve = CheckpointStore(folder / "checkpoints").load(read_only=True).state["history"].curve
    return [metrics["train/learning_rate"] for step, metrics in curve if step > 0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    train(folder, *SETTINGS)
    return folder


@pytest.fixture(scope="module")
def prolonged(finished, tmp_path_factory):
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("prolonged") / "run")
    ended = train(folder, "resume=auto", "trainer.max_steps=8")
    return folder, final_state(ended)


def test_a_finished_run_that_is_prolonged_restarts_its_schedule(prolonged):
    folder, _ = prolonged
    assert rates(folder) == pytest.approx(WHOLE + WHOLE)
    verified = succeed_here(f"run={folder}", script="verify")
    assert "step-00000008: bitwise" in verified.stdout


def test_a_prolonged_run_that_is_interrupted_continues_its_second_schedule(prolonged, tmp_path):
    folder, state = prolonged
    copy = shutil.copytree(folder, tmp_path / "run")
    for name in ("step-00000008", "best"):
        shutil.rmtree(copy / "checkpoints" / name, ignore_errors=True)
    assert final_state(train(copy, "resume=step-6")) == state


def test_a_fork_of_a_finished_run_restarts_its_schedule(finished, tmp_path):
    train(tmp_path / "fork", f"resume={finished}", "trainer.max_steps=8", "tracking=none")
    assert rates(tmp_path / "fork") == pytest.approx(WHOLE + WHOLE)


def test_a_run_that_had_not_ended_has_the_longer_schedule(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    train(folder, "resume=step-2", "trainer.max_steps=8")
    longer = cosine(2, 0.0, peak=1e-3, steps=8)
    assert rates(folder)[2:] == pytest.approx(
        [longer(mx.array(step)).item() for step in range(2, 8)]
    )


def test_a_constant_rate_stays_constant(tmp_path):
    train(tmp_path, *SETTINGS, "trainer/schedule=constant")
    train(tmp_path, "resume=auto", "trainer.max_steps=8")
    assert rates(tmp_path)[1:] == pytest.approx([1e-3] * 7)


MODEL = ["model=bert", "model.num_layers=1", "model.hidden_size=8", "model.num_heads=1"]
MODEL += ["model.intermediate_size=8"]
DATA = ["data=text_classification", "data.text_column=text", "data.target=label", "data.seq_len=8"]


def test_another_batch_size_does_not_shorten_a_run_that_is_resumed(tmp_path):
    rows = [f"text number {row},{'ab'[row % 2]}" for row in range(64)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *rows]))
    folder = [f"hydra.run.dir={tmp_path}/run", "tracking=none"]
    succeed_here(*MODEL, *DATA, f"data.source={tmp_path}/rows.csv", "trainer.max_steps=2", *folder)
    assert epochs(tmp_path) == 100  # of 2 steps with 32 rows each
    succeed_here("resume=auto", "data.batch_size=4", "trainer.max_steps=3", *folder)
    assert epochs(tmp_path) == 100


def epochs(folder):
    store = CheckpointStore(folder / "run" / "checkpoints")
    return store.load(read_only=True).state["metadata"]["epochs"]


def test_a_run_shorter_than_its_steps_was_ended_by_another_limit():
    config = {"trainer": {"max_steps": 1000, "epochs": "auto", "max_tokens": None}}
    assert limit_of(config) == limit_of(config, 1000) == "max_steps"
    assert limit_of(config, 200) == "epochs"

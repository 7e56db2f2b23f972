"""kill -9 in the middle of a growth schedule: the run continues and ends as the undisturbed one, in every file."""

import csv
import re
import signal
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import mlx.core as mx
import psutil
import pytest

from mlxlab.checkpoint.store import Checkpoint, CheckpointStore
from mlxlab.record.run_file import read_run
from support.fault_injection.harness import (
    TIMED,
    ForkServer,
    Reference,
    assert_same_metrics,
    assert_tidy,
    read_metrics,
    reference,
    settings,
    tracked,
)
from support.processes import process_of_rank, run, start, wait_for

SHORT = """trainer.epochs=null trainer.max_steps=16 trainer.eval_every=6
checkpointing.every_steps=3 trainer.ema_decay=0.9 callbacks.csv.path=metrics.csv"""
TEXT = """data=streaming data/order=curriculum data.order.pool=50 data.order.rescore_every=3
data.valid_fraction=0.2 data.seq_len=32 data.tokenizer.vocab_size=300 model.freeze=[norm]
objective=valid/bits_per_byte"""
LORA = "{id: lora, op: set_lora, rank: 2, when: {or_steps: 1}}"
MERGE = "{id: merge, op: merge_lora, when: {or_steps: 2}}"
DEEPER = "{id: deeper, op: stack, map: [0, 0], when: {or_steps: 2}, then: evaluate}"
WIDER = "{id: wider, op: widen, feed_forward: 24, when: {or_steps: 1}}"
ROWS = "{id: rows, op: set_batch_size, batch_size: 4, when: {or_steps: 1}}"
FREE = "{id: free, op: unfreeze, when: {or_steps: 1}, then: evaluate}"
GROWING = {
    "curriculum": (
        DEEPER,
        WIDER,
        "{id: all, op: resize_vocabulary, size: 320, when: {or_steps: 2}, then: evaluate}",
        LORA,
        ROWS,
        MERGE,
        FREE,
        "{id: order, op: set_curriculum, alpha: 0.3, when: {or_steps: 1}}",
    ),
    "optimized": (
        DEEPER,
        "{id: micro, op: set_accumulation, accumulate: 4, when: {or_steps: 1}}",
        WIDER,
        LORA,
        "{id: rate, op: set_learning_rate, learning_rate: 0.01, when: {or_steps: 1}}",
        MERGE,
        "{id: warm, op: rewarm, steps: 3, restart: true, when: {or_steps: 1}}",
    ),
    "distill": (
        DEEPER,
        LORA,
        ROWS,
        "{id: eval, op: set_evaluation, eval_every: 4, when: {or_steps: 1}}",
        MERGE,
        WIDER,
        FREE,
    ),
}
PLACES = ("before", "inside", "after", "evaluation", "save")
STEP = "trainer.step.accumulate=2", "trainer.step.activation_checkpointing=true"
SLOW = pytest.mark.fault_injection


@pytest.fixture(scope="module")
def teacher(shared_server, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "run"
    argv = settings("bert", "trainer.max_steps=4", f"hydra.run.dir={folder}")
    shared_server.run(argv).final_state()
    return folder


@pytest.fixture
def arguments(corpus, tmp_path, request):
    """A function: the command line of a run with one of the schedules."""

    def make(name: str, *overrides: str) -> list[str]:
        schedule = f"callbacks.growth.operations=[{', '.join(GROWING[name])}]"
        more = [*SHORT.split(), schedule, *tracked(tmp_path / "db")]
        if name == "distill":
            teachers = f"trainer.teachers=[{request.getfixturevalue('teacher')}]"
            more += ["trainer=distill", teachers, "model.freeze=[embedding]"]
            return settings("bert", *more, *overrides)
        more += [*TEXT.split(), f"data.source={corpus}"]
        if name == "optimized":
            more += ["trainer=optimized", *STEP]
        titanic = ("data.baselines", "data.templates", "data.augment")
        argv = settings("transformer", *more, *overrides)
        return [each for each in argv if not each.startswith(titanic)]

    return make


def growth_steps(expected: Reference) -> dict[int, int]:
    """Step -> operations that are done after it."""
    values = expected.metrics.items()
    return {step: int(value) for (name, step), value in values if name == "growth/done"}


@SLOW
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", GROWING)
def test_a_schedule_killed_at_its_operations_ends_as_if_undisturbed(
    shared_server: ForkServer, arguments, tmp_path, name, place
):
    """One run, killed at every operation in turn and resumed to the next one."""
    argv = arguments(name)
    expected = reference(shared_server, argv, tmp_path / "reference")
    steps, here = growth_steps(expected), [*argv, f"hydra.run.dir={tmp_path}/run"]
    evaluated = {step for metric, step in expected.metrics if metric.startswith("valid/")}
    chosen = sorted(set(steps) & evaluated if place == "evaluation" else steps)
    for number, step in enumerate(chosen):
        plan = {"place": place, "step": step, "call": 1 + 2 * number}
        attempt = shared_server.run(here, syncer=False, grow=plan)
        assert attempt.returncode == -signal.SIGKILL, (step, attempt.err)
    finish(shared_server, here, expected, tmp_path)


def finish(server: ForkServer, here: list[str], expected: Reference, folder: Path) -> None:
    """The last start: it says how much of the schedule is done, and ends as the reference, in every file."""
    saved = load_last(folder / "run").state["progress"].growth
    done = server.run(here, syncer=False)
    assert "resumed from step-" in done.err
    total = max(growth_steps(expected).values())
    assert not saved.done or f"{len(saved.done)} of {total} done" in done.err
    assert done.final_state() == expected.final_state
    assert_same_metrics(read_metrics(folder / "run" / "journal.jsonl"), expected.metrics)
    assert_tidy(folder / "run")
    assert_same_files(folder / "run", folder / "reference")
    assert_same_in_store(folder)


def load_last(folder: Path) -> Checkpoint:
    return CheckpointStore(folder / "checkpoints").load(read_only=True)


def assert_same_files(got: Path, expected: Path) -> None:
    """Table, results and the last checkpoint; times differ."""
    assert read_table(got) == read_table(expected)
    assert read_run(got).evaluation.results == read_run(expected).evaluation.results
    name = "inference/config.yaml"
    texts = [(folder / name).read_text().replace(str(folder), "") for folder in (got, expected)]
    assert texts[0] == texts[1]
    a, b = load_last(got), load_last(expected)
    assert (a.step, untimed(a)) == (b.step, untimed(b))
    for left, right in ((a.weights, b.weights), (a.optimizer, b.optimizer)):
        assert left.keys() == right.keys()
        assert all(mx.array_equal(array, right[path]) for path, array in left.items())


def read_table(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, by column: the order of columns is that in which metrics were first logged."""
    rows = csv.DictReader((folder / "metrics.csv").read_text().splitlines())
    return [{name: row[name] for name in row if name != "time" and not timed(name)} for row in rows]


def timed(name: str) -> bool:
    """Whether it measures the machine; or compares outputs on a batch that a resumed run may not have at hand."""
    return name.startswith((*TIMED, "growth/output_change"))


def untimed(checkpoint: Checkpoint) -> list[Any]:
    """What a checkpoint holds besides arrays and the metadata of its run."""
    state = checkpoint.state
    curve = [
        (step, {key: value for key, value in metrics.items() if not timed(key)})
        for step, metrics in state["history"].curve
    ]
    history = vars(state["history"]) | {"curve": curve}
    kept = ("progress", "running", "data", "architecture", "vocab_size")
    return [repr(history), *(repr(state[key]) for key in kept)]


def assert_same_in_store(folder: Path) -> None:
    """Metrics of each step, and the tag of the operations, as MLflow's store has them after `runs sync`."""
    store = f"sqlite:///{folder}/db/mlflow.db"
    synced = run("sync", f"{folder}/run", f"{folder}/reference", f"uri={store}", script="runs")
    assert synced.returncode == 0, synced.stderr
    uids = [read_run(folder / name).id for name in ("run", "reference")]
    run_of = "WHERE run_uuid IN (SELECT run_uuid FROM tags WHERE key = 'mlxlab.uid' AND value = ?)"
    metrics = []
    with closing(sqlite3.connect(folder / "db" / "mlflow.db")) as database:
        for uid in uids:
            rows = database.execute(f"SELECT key, step, value FROM metrics {run_of}", (uid,))
            rows = [row for row in rows if not timed(row[0])]
            assert len({row[:2] for row in rows}) == len(rows) > 100
            metrics.append({row[:2]: row[2] for row in rows})
    assert metrics[0] == metrics[1]
    assert any(name.startswith("growth/") for name, _ in metrics[0])


def untracked(argv: list[str]) -> list[str]:
    return [each for each in argv if not each.startswith("tracking.")]


@SLOW
@pytest.mark.parametrize("ranks", [[0], [1], [0, 1]])
def test_a_schedule_killed_in_two_processes_resumes_in_two(arguments, tmp_path, ranks):
    argv = untracked(arguments("curriculum", "tracking=none", "nproc=2"))
    done = run(*argv, f"hydra.run.dir={tmp_path}/reference", script="launch")
    assert done.returncode == 0, done.stderr
    for step in (3, 6, 10):
        process = start(*argv, f"hydra.run.dir={tmp_path}/run", script="launch")
        wait_for(tmp_path / "run" / "checkpoints" / f"step-{step:08d}", process, seconds=240)
        for each in [process_of_rank(process, rank) for rank in ranks]:
            with suppress(psutil.NoSuchProcess):  # the launcher ends the others
                each.kill()
        process.communicate(timeout=120)
    resumed = run(*argv, f"hydra.run.dir={tmp_path}/run", script="launch")
    assert resumed.returncode == 0, resumed.stderr
    assert re.search(r"growth: [3-8] of 8 done", resumed.stderr)
    assert_same_files(tmp_path / "run", tmp_path / "reference")

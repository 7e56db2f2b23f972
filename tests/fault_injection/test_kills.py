"""kill -9 at random instants of whole runs: every start goes on, every end is the end of the undisturbed run.

Half of the kills fall at an instant drawn from the duration of a run; the others at an instant of a phase that is too
short for chance: a save, a retention, an evaluation, a line of the journal, the report.
"""

import random
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from itertools import cycle
from pathlib import Path

import pytest

from support.fault_injection.harness import (
    MODELS,
    STEPS,
    ForkServer,
    Reference,
    assert_same_metrics,
    assert_tidy,
    committed,
    final_state,
    fork_server,
    read_metrics,
    reference,
    rng_for,
    settings,
    timed,
    tracked,
    train,
)
from support.processes import run
from support.tracking import kill_uploader

# How often in a run.
SHORT_PHASES = {"save": 20, "retention": 15, "evaluation": 3, "tracking": 40, "report": 1}


def kill_repeatedly(
    server: ForkServer,
    argv: list[str],
    folder: Path,
    expected: Reference,
    kills: int,
    rng: random.Random,
) -> None:
    """Kills and starts again, `kills` times; the last run may end, and one that ends is compared."""
    killed, number = 0, 0
    while True:
        here = folder / str(number)
        last = killed >= kills
        before = committed(here)
        attempt = server.start([*argv, f"hydra.run.dir={here}"], syncer=False)
        if not last:
            kill_at_random_instant(attempt, expected, rng)
        attempt.finish()
        is_new = "resumed from step-" not in attempt.err
        is_lost = before and is_new and attempt.phase not in ("start", "data")
        assert not is_lost, f"{attempt.phase}: a new run although there were {before}"
        if attempt.returncode == -signal.SIGKILL:
            killed += 1
            continue
        assert attempt.final_state() == expected.final_state, here
        assert_same_metrics(read_metrics(here / "journal.jsonl"), expected.metrics)
        assert_tidy(here)
        number += 1
        if last:
            return


def kill_at_random_instant(attempt, expected: Reference, rng: random.Random) -> None:
    """One kill -9 at a random instant, unless the run ends before."""
    if rng.random() < 0.5:
        attempt.wait(rng.uniform(0.0, 1.2 * expected.seconds))
    else:
        phase = rng.choice(list(SHORT_PHASES))
        if attempt.wait_for(phase, rng.randint(1, max(1, SHORT_PHASES[phase] // 2))):
            attempt.wait(rng.uniform(0.0, 0.02))
    attempt.send(signal.SIGKILL)


@pytest.mark.parametrize("kills", [3, pytest.param(300, marks=pytest.mark.fault_injection)])
def test_kill_9_at_any_instant_loses_nothing(shared_server, tmp_path, kills):
    variants = [(model, prefetch) for model in MODELS for prefetch in (0, 2)]
    lanes = 2 if kills > 20 else 1

    def work(lane: int) -> None:
        chosen = variants[lane::lanes] if kills > 20 else [("transformer", 2)]
        own = fork_server(tmp_path / f"server-{lane}") if lanes > 1 else nullcontext(shared_server)
        with own as server:
            for variant in chosen:
                kill_variant(server, lane, variant, -(-kills // (lanes * len(chosen))))

    def kill_variant(server: ForkServer, lane: int, variant: tuple[str, int], count: int) -> None:
        model, prefetch = variant
        folder = tmp_path / f"{model}-{prefetch}"
        argv = settings(model, f"data.prefetch={prefetch}", *tracked(tmp_path / f"project-{lane}"))
        expected = reference(server, argv, folder / "reference")
        logged = sorted(step for name, step in expected.metrics if name == "train/loss")
        assert logged == [*range(1, STEPS + 1)]
        rng = rng_for("kills", model, prefetch)
        kill_repeatedly(server, argv, folder, expected, count, rng)

    with ThreadPoolExecutor(lanes) as pool:
        list(pool.map(work, range(lanes)))
    for lane in range(lanes):
        journals = sorted(tmp_path.glob("*/*/journal.jsonl"))
        assert_store_is_complete(tmp_path / f"project-{lane}", journals)


def assert_store_is_complete(project: Path, journals: list[Path]) -> None:
    """`runs.py sync` afterwards: every (metric, step) stands in MLflow's store exactly once."""
    runs = [journal.parent for journal in journals if f"{project}/mlflow.db" in journal.read_text()]
    done = run("sync", *map(str, runs), f"uri=sqlite:///{project}/mlflow.db", script="runs")
    assert done.returncode == 0, done.stderr
    with sqlite3.connect(project / "mlflow.db") as store:
        query = "SELECT run_uuid, key, step, COUNT(*) FROM metrics GROUP BY 1, 2, 3"
        rows = store.execute(query).fetchall()
    per_run = Counter(run_id for run_id, key, _, _ in rows if key == "train/loss")
    assert all(count == 1 for _, key, step, count in rows if not timed((key, step)))
    # A run killed before its first checkpoint starts anew: what it had logged stays, as a run of its own.
    restarted = [path for folder in runs for path in folder.glob("journal-*.jsonl")]
    assert Counter(per_run.values())[STEPS] == len(runs), per_run
    assert len(per_run) <= len(runs) + len(restarted), per_run


@pytest.mark.fault_injection
@pytest.mark.parametrize("model", MODELS)
def test_kill_9_of_the_process_that_a_user_starts(shared_server, tmp_path, model):
    """From the first instant of the interpreter on, also while the syncer is carrying."""
    rng = rng_for("processes", model)
    argv = settings(model, *tracked(tmp_path / "project"))
    expected = reference(shared_server, argv, tmp_path / "reference")
    killed, done = 0, 0
    for phase in cycle((0.3, 2.0, 4.0, 6.0)):
        process = train(*argv, f"hydra.run.dir={tmp_path}/{done}")
        if killed < 10:
            with suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0, phase))
            process.kill()
        got, err = process.communicate(timeout=120)
        if process.returncode == -signal.SIGKILL:
            killed += 1
            continue
        assert process.returncode == 0, err
        assert final_state(got) == expected.final_state
        metrics = read_metrics(tmp_path / str(done) / "journal.jsonl")
        assert_same_metrics(metrics, expected.metrics)
        done += 1
        if killed >= 10:
            break


@pytest.mark.fault_injection
def test_kill_9_of_trainer_and_uploader_leaves_every_metric_once(tmp_path):
    rng, kills, folders = rng_for("uploader"), Counter(), 1
    argv = settings("bert", *tracked(tmp_path / "project"))
    start = time.monotonic()
    train(*argv, f"hydra.run.dir={tmp_path}/0").communicate(timeout=120)
    seconds = time.monotonic() - start
    while kills.total() < 30:
        process = train(*argv, f"hydra.run.dir={tmp_path}/{folders}")
        with suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.3, 1.0) * seconds)
        if rng.random() < 0.5:
            process.kill()
        else:
            for queue in (tmp_path / "project").glob(".queue-*"):
                kills["uploader"] += kill_uploader(queue)
        _, err = process.communicate(timeout=120)
        if process.returncode == -signal.SIGKILL:
            kills["trainer"] += 1
            continue
        assert process.returncode == 0, err
        folders += 1
    done = run(*argv, f"hydra.run.dir={tmp_path}/{folders}")
    assert done.returncode == 0, done.stderr
    assert min(kills["trainer"], kills["uploader"]) >= 5
    journals = sorted(tmp_path.glob("*/journal.jsonl"))
    assert_store_is_complete(tmp_path / "project", journals)


@pytest.mark.fault_injection
def test_kill_9_at_each_disk_call_of_a_save(shared_server, tmp_path):
    """The sixth save: a new best is among those before, the seventh and fourth are to go."""
    argv = settings("bert", "trainer.max_steps=14", "checkpointing.keep=1")
    expected = reference(shared_server, argv, tmp_path / "reference")
    call = 1
    while True:
        here = [*argv, f"hydra.run.dir={tmp_path}/{call}"]
        attempt = shared_server.run(here, kill={"save": 6, "call": call})
        if attempt.returncode == 0:
            break  # the save has no such call
        assert attempt.returncode == -signal.SIGKILL, attempt.err
        resumed = shared_server.run(here)
        assert "resumed from step-000000" in resumed.err
        assert resumed.final_state() == expected.final_state, call
        assert_tidy(tmp_path / str(call), keep=1)
        call += 1
    assert call > 4


@pytest.mark.fault_injection
@pytest.mark.parametrize("save", [1, 2])
def test_kill_9_at_each_disk_call_of_a_save_with_adapters(shared_server, tmp_path, save):
    """The first save also writes the frozen weights, which the others share."""
    argv = settings("bert", "trainer.max_steps=6", "model/adapter=lora", "model.adapter.dora=true")
    expected = reference(shared_server, argv, tmp_path / "reference")
    call = 1
    while True:
        folder = tmp_path / str(call)
        here = [*argv, f"hydra.run.dir={folder}"]
        attempt = shared_server.run(here, kill={"save": save, "call": call})
        if attempt.returncode == 0:
            break  # the save has no such call
        assert attempt.returncode == -signal.SIGKILL, attempt.err
        resumed = shared_server.run(here)
        assert resumed.final_state() == expected.final_state, call
        assert_tidy(folder)
        assert len(list((folder / "base").iterdir())) == 1, "a leftover, or the same weights twice"
        call += 1

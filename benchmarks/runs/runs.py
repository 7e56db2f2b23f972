"""Elapsed and CPU seconds of each command of `runs` on a large store, in processes of their own."""

import random
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from benchmarks.alternate import table
from mlxlab.schema.constraints import Size
from mlxlab.tracking.mlflow.address import resolve
from mlxlab.tracking.mlflow.store import open_client

PARAMS = 40  # of a run
METRICS = (
    "train/loss",
    "valid/loss",
    "valid/accuracy",
    "train/learning_rate",
    "throughput/tokens_per_sec",
)
COMMANDS = {
    "list": ["list"],
    "list, sorted": [
        "list",
        "sort=valid/accuracy",
        "metrics=valid/accuracy,valid/loss",
        "params=seed",
    ],
    "list, filtered": [
        "list",
        "filter=metrics.`valid/accuracy` > 0.8 and params.`model.name` = 'bert'",
        "limit=100",
    ],
    "list, all as JSON": ["list", "limit=100000", "--json"],
    "show": ["show", "run17"],
    "diff": ["diff", "run17", "run18"],
    "a misspelt name": ["show", "rn17"],
}


def runs(runs: Size = 10_000, rows: Size = 1_000_000, rounds: int = 5) -> str:
    """Builds a store of `runs` runs and `rows` rows of metrics by SQL; the first round is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        address = resolve(f"sqlite:///{folder}/mlflow.db", None, Path(folder))
        open_client(address)
        assert address.database is not None
        fill(address.database, runs, max(1, rows // (runs * len(METRICS))))
        megabytes = address.database.stat().st_size / 1e6
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
        for _ in range(rounds + 1):
            for name, args in COMMANDS.items():
                seconds[name].append(_time([*args, f"uri={address.uri}"]))
    lines: list[tuple[str, ...]] = [("command", "median s", "max s", "median CPU s")]
    for name, each in seconds.items():
        elapsed, cpu = zip(*each[1:], strict=True)
        values = (statistics.median(elapsed), max(elapsed), statistics.median(cpu))
        lines.append((name, *(f"{value:.2f}" for value in values)))
    return table(f"{runs} runs, {rows} rows of metrics, {megabytes:.0f} MB, {rounds} rounds", lines)


def fill(database: Path, runs: int, steps: int) -> None:
    """Adds `runs` runs with `steps` steps of each metric to an empty store of MLflow."""
    with closing(sqlite3.connect(database)) as connection:
        for pragma in ("synchronous=off", "journal_mode=memory", "cache_size=-500000"):
            connection.execute(f"pragma {pragma}")
        connection.execute(
            "insert into experiments(experiment_id, name, artifact_location, lifecycle_stage) "
            "values (1, 'mlxlab', '/artifacts', 'active')"
        )
        start = 1_700_000_000_000
        connection.executemany(
            "insert into runs(run_uuid, name, status, start_time, end_time, lifecycle_stage, artifact_uri, "
            "experiment_id, user_id) values (?, ?, 'FINISHED', ?, ?, 'active', '/artifacts', 1, 'user')",
            ((_id(i), f"run{i}", start + 1000 * i, start + 1000 * i + 60_000) for i in range(runs)),
        )
        connection.executemany(
            "insert into params(run_uuid, key, value) values (?, ?, ?)", _params(runs)
        )
        connection.executemany(
            "insert into tags(run_uuid, key, value) values (?, ?, ?)", _tags(runs)
        )
        connection.executemany(
            "insert into metrics(run_uuid, key, value, timestamp, step, is_nan) values (?, ?, ?, ?, ?, 0)",
            _metrics(runs, steps),
        )
        connection.execute(
            "insert into latest_metrics(run_uuid, key, value, timestamp, step, is_nan) "
            "select run_uuid, key, value, timestamp, step, is_nan from metrics where step = ?",
            (steps,),
        )
        connection.commit()


def _id(index: int) -> str:
    return f"{index:032x}"  # in order: random ones take minutes to insert


def _params(runs: int) -> Iterator[tuple[str, str, str]]:
    for i in range(runs):
        rng = random.Random(i)
        yield _id(i), "model.name", rng.choice(["bert", "transformer", "cnn_hybrid"])
        yield _id(i), "seed", str(i % 10)
        yield from ((_id(i), f"param{k}", f"{rng.random():.4f}") for k in range(PARAMS - 2))


def _tags(runs: int) -> Iterator[tuple[str, str, str]]:
    for i in range(runs):
        yield _id(i), "mlxlab.uid", random.Random(-i - 1).randbytes(16).hex()
        yield _id(i), "mlxlab.folder", f"/project/outputs/run{i}"
        yield _id(i), "mlflow.runName", f"run{i}"
        yield _id(i), "objective", "valid/accuracy"
        yield from ((_id(i), f"version.package{k}", "1.0") for k in range(10))


def _metrics(runs: int, steps: int) -> Iterator[tuple[str, str, float, int, int]]:
    for i in range(runs):
        rng, run_id = random.Random(i), _id(i)
        for key in METRICS:
            start = 1_700_000_000_000 + 1000 * i
            yield from (
                (run_id, key, rng.random(), start + step, step) for step in range(1, steps + 1)
            )


def _time(args: list[str]) -> tuple[float, float]:
    """(elapsed, CPU) seconds of a command."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "mlxlab", "runs", *args], capture_output=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (
        time.perf_counter() - start,
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    )

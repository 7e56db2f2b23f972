"""Runs under fault injection: their settings, the server that starts them, and what must hold when they end."""

import contextlib
import json
import math
import mmap
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import filterfalse
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from support.fault_injection import faults
from support.fault_injection.fork_server import serve
from support.forks import fork
from support.processes import ROOT, environment

SEED = int(os.environ.get("MLXLAB_TORTURE_SEED", "7"))
STEPS = 40
SETTINGS = f"""trainer.max_steps={STEPS} trainer.eval_every=10 trainer.log_every=1
checkpointing.every_steps=2 model.num_layers=1 model.hidden_size=16 model.num_heads=2
model.intermediate_size=16 data.batch_size=8 data.prefetch=0 data.baselines=false
data.templates=[basic] data.augment.copies=1 tracking=none resume=auto"""
MODELS = {
    "bert": ("model=bert",),
    "cnn_hybrid": ("model=cnn_hybrid", "model.num_filters=4"),
    "transformer": ("model=transformer",),
}
TIMED = ("throughput/", "memory/", "system/")  # metrics that measure the machine, not the run


def settings(model: str, *overrides: str) -> list[str]:
    """The command line of a tiny run of this model; later overrides win."""
    chosen: dict[str, str] = {}
    for setting in (*MODELS[model], *SETTINGS.split(), *overrides):
        key, value = setting.split("=", 1)
        chosen[key] = value
    return [*(f"{key}={value}" for key, value in chosen.items())]


def tracked(project: Path) -> list[str]:
    """MLflow in a store of the test's own; the run does not wait for it."""
    store = f"tracking.uri=sqlite:///{project}/mlflow.db", f"tracking.artifacts={project}/artifacts"
    return ["tracking=mlflow", *store, "tracking.wait=0", "tracking.log_models=false"]


class Attempt:
    """One process of a run, started by the server."""

    def __init__(self, pid: int, folder: Path, phase: mmap.mmap) -> None:
        self.pid, self.folder, self._phase = pid, folder, phase
        self.returncode: int | None = None
        self.began = time.monotonic()
        self.seconds = 0.0
        self._ended = threading.Event()

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text(errors="replace")

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text(errors="replace")

    @property
    def phase(self) -> str:
        """What it does now, or did when it died."""
        marks = self._phase[: len(faults.PHASES)]
        return next((faults.PHASES[i] for i in reversed(range(len(marks))) if marks[i]), "start")

    def send(self, number: int) -> bool:
        """Sends a signal; False when it has ended by itself before."""
        if self._ended.is_set():
            return False
        os.kill(self.pid, number)
        return True

    def wait(self, seconds: float) -> bool:
        """Waits at most so long; True when it has ended."""
        return self._ended.wait(seconds)

    def wait_for(self, phase: str, times: int = 1) -> bool:
        """Waits until it is in this phase for the n-th time; False when it ends before."""
        index = len(faults.PHASES) + faults.PHASES.index(phase)
        while not self._ended.wait(0.0003):
            if self._phase[index] >= times:
                return True
        return False

    def finish(self, seconds: float = 120.0) -> "Attempt":
        if not self.wait(seconds):
            os.kill(self.pid, signal.SIGKILL)
            raise AssertionError(f"hangs in {self.phase}: {self.err[-2000:]}")
        return self

    def end(self, returncode: int) -> None:
        self.returncode, self.seconds = returncode, time.monotonic() - self.began
        self._ended.set()

    def final_state(self) -> str:
        assert self.returncode == 0, f"exit code {self.returncode}: {self.err[-3000:]}"
        return final_state(self.out)


class ForkServer:
    """Starts runs fast, one at a time: see fork_server.py."""

    def __init__(self, folder: Path, **variables: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        phase = folder / "phase"
        phase.write_bytes(bytes(2 * len(faults.PHASES)))
        with phase.open("r+b") as file:
            self._phase = mmap.mmap(file.fileno(), 2 * len(faults.PHASES))
        self._connection, child_end = Pipe()
        self._process = fork(serve, child_end, environment(**variables))
        child_end.close()
        self._last: Attempt | None = None

    def start(self, argv: list[str], **plan: Any) -> Attempt:
        if self._last is not None and self._last.send(signal.SIGKILL):  # of a test that failed
            self._last.wait(20)
        self._phase[:] = bytes(len(self._phase))
        out, err = self.folder / "out", self.folder / "err"
        out.write_bytes(b"")
        err.write_bytes(b"")
        order = {"argv": argv, "environment": {}, "out": str(out), "err": str(err), "plan": plan}
        self._connection.send(order | {"phase": str(self.folder / "phase")})
        attempt = Attempt(self._connection.recv(), self.folder, self._phase)
        self._last = attempt
        threading.Thread(target=lambda: attempt.end(self._connection.recv()), daemon=True).start()
        return attempt

    def run(self, argv: list[str], **plan: Any) -> Attempt:
        return self.start(argv, **plan).finish()

    def close(self) -> None:
        self._connection.close()
        self._process.join(20)


@contextlib.contextmanager
def fork_server(folder: Path, **variables: str) -> Iterator[ForkServer]:
    server = ForkServer(folder, **variables)
    try:
        yield server
    finally:
        server.close()


@dataclass(frozen=True)
class Reference:
    """How a run ends that nobody disturbs: its state, its journal, its duration."""

    final_state: str
    metrics: dict[tuple[str, int], float]
    seconds: float


def reference(fork_server: ForkServer, argv: list[str], folder: Path) -> Reference:
    done = fork_server.run([*argv, f"hydra.run.dir={folder}"], syncer=False)
    state = done.final_state()
    journal = folder / "journal.jsonl"
    return Reference(state, read_metrics(journal) if journal.exists() else {}, done.seconds)


def final_state(out: str) -> str:
    lines = [line for line in out.splitlines() if line.startswith("final_state=")]
    assert len(lines) == 1, out[-2000:]
    return lines[0]


def read_metrics(journal: Path) -> dict[tuple[str, int], float]:
    """(metric, step) -> value of a journal; every pair must stand in it once, but for steps that a resume repeats."""
    metrics: dict[tuple[str, int], float] = {}
    for line in journal.read_text().splitlines():
        record = json.loads(line)
        last = record.get("truncate_after", math.inf)
        metrics = {pair: value for pair, value in metrics.items() if pair[1] <= last}
        for name, value in record.get("m", {}).items():
            pair = name, record["s"]
            assert pair not in metrics, f"{pair} stands twice in {journal}"
            metrics[pair] = float(value)
    return metrics


def assert_same_metrics(
    got: dict[tuple[str, int], float], expected: dict[tuple[str, int], float]
) -> None:
    """The same (metric, step) pairs, and the same values of all that does not measure the machine."""
    assert {*filterfalse(timed, got)} == {*filterfalse(timed, expected)}
    for pair, value in expected.items():
        same = timed(pair) or got[pair] == value or (math.isnan(got[pair]) and math.isnan(value))
        assert same, f"{pair}: {got[pair]} instead of {value}"


def timed(pair: tuple[str, int]) -> bool:
    return pair[0].startswith(TIMED)


def assert_tidy(folder: Path, keep: int = 2) -> None:
    """Nothing of a killed save is left, and no more checkpoints than are to be kept (the best besides)."""
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert not [name for name in names if not name.startswith("step-")], names
    assert len(names) <= keep + 1, names


def committed(folder: Path) -> list[Path]:
    checkpoints = folder / "checkpoints"
    return sorted(checkpoints.glob("step-*")) if checkpoints.is_dir() else []


def rng_for(*labels: object) -> random.Random:
    """A generator of its own for each test, all from one seed."""
    return random.Random(":".join(map(str, (SEED, *labels))))


def counts(outcomes: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in outcomes.most_common())


def train(*argv: str) -> subprocess.Popen[str]:
    """A run as a user starts it."""
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *argv]
    return subprocess.Popen(command, env=environment(), stdout=-1, stderr=-1, text=True)

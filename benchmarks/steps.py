"""Seconds and memory of a training step: ours, plain MLX, mlx-lm's trainer, PyTorch; processes that work in turn."""

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.alternate import table
from benchmarks.step_subjects import LENGTH, ROWS, VOCABULARY
from mlxlab.errors import ConfigError

BURST = 4.0  # seconds of steps at a time: the first of them finds caches that others have filled
NEEDS = {
    "torch": ("torch", "pip install torch, of its CPU build"),
    "mlx_lm": ("mlx_lm", "pip install mlx-lm"),
}


@dataclass
class Measured:
    """What one subject took, burst by burst."""

    name: str
    loss: float | None = None
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    bytes: int = 0
    failed: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds) if self.seconds else float("nan")


def steps(
    size: str = "nano",
    model: str = "transformer,bert",
    compare_with: str = "",
    rounds: int = 5,
    dropout: float | None = None,
    save: str | None = None,
) -> str:
    """One table; also written to `save`.md and `save`.json where that is given.

    Args:
        size: names of model/size, with commas between.
        model: transformer, bert or both.
        compare_with: torch, mlx_lm or both; neither is a dependency.
        rounds: bursts of steps of each subject, in turn.
        dropout: for all models; what model/*.yaml ship with, if not given.
    """
    subjects = ["simple", "optimized", "plain MLX", *_others(compare_with)]
    shipped = {"transformer": 0.0, "bert": 0.1}
    results: list[dict[str, Any]] = []
    rows: list[tuple[str, ...]] = []
    for family in model.split(","):
        for one in size.split(","):
            share = shipped[family] if dropout is None else dropout
            measured = _measure(
                [s for s in subjects if s != "mlx-lm" or family == "transformer"], family, one, share, rounds
            )
            results.append({"model": family, "size": one, "dropout": share, "subjects": [vars(m) for m in measured]})
            rows += _rows(f"{family} {one}", measured)
    head = ("model", "subject", "s per step", "fastest", "CPU s", "against simple", "peak MB", "first loss")
    title = (
        f"a step of {ROWS} x {LENGTH} tokens, {VOCABULARY} classes, float32, AdamW; medians of {rounds} bursts in turn"
    )
    text = table(title, [head, *rows])
    if save is not None:
        Path(save).parent.mkdir(parents=True, exist_ok=True)
        Path(f"{save}.md").write_text(text + "\n")
        Path(f"{save}.json").write_text(json.dumps({"title": title, "results": results}, indent=1) + "\n")
    return text


def _others(compare_with: str) -> list[str]:
    found = []
    for name in filter(None, compare_with.split(",")):
        module, command = NEEDS[name]
        if find_spec(module) is None:
            raise ConfigError(f"compare_with={name}: {module} is not installed; get it by: {command}")
        found += ["PyTorch", "PyTorch compiled"] if name == "torch" else ["mlx-lm"]
    return found


def _measure(subjects: list[str], family: str, size: str, dropout: float, rounds: int) -> list[Measured]:
    """All processes live at once, and one works at a time."""
    measured = [Measured(name) for name in subjects]
    workers = []
    for one in measured:
        workers.append(_Worker(one, family, size, dropout))
        workers[-1].start()
    for _ in range(rounds):
        for worker in workers:
            worker.burst()
    for worker in workers:
        worker.end()
    return measured


class _Worker:
    def __init__(self, measured: Measured, family: str, size: str, dropout: float) -> None:
        self.measured, self.count = measured, 1
        words = [sys.executable, "-m", "benchmarks.step_subjects", measured.name, family, size, str(dropout)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)

    def start(self) -> None:
        """What it does once, compiling above all, is not measured."""
        self.measured.loss = self._read().get("loss")
        self.ask(1)
        seconds = self.ask(1).get("seconds", BURST)
        self.count = max(1, round(BURST / seconds))

    def burst(self) -> None:
        answer = self.ask(self.count)
        if not self.measured.failed:
            self.measured.seconds.append(answer["seconds"])
            self.measured.cpu.append(answer["cpu"])
            self.measured.bytes = answer["bytes"]

    def ask(self, steps: int) -> dict[str, Any]:
        if self.process.poll() is None and self.process.stdin is not None:
            self.process.stdin.write(f"{steps}\n")
            self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self.process.stdout.readline() if self.process.stdout is not None else ""
        if not line:
            self.measured.failed = f"ended with {self.process.wait()}"
            return {}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def _rows(title: str, measured: list[Measured]) -> list[tuple[str, ...]]:
    alone = measured[0].median
    rows: list[tuple[str, ...]] = []
    for one in measured:
        if one.failed:
            rows.append((title, one.name, one.failed, *("",) * 5))
            continue
        rows.append(
            (
                title,
                one.name,
                f"{one.median:.3f}",
                f"{min(one.seconds):.3f}",
                f"{statistics.median(one.cpu):.3f}",
                f"{one.median / alone:.2f} x",
                f"{one.bytes / 1e6:.0f}",
                "" if one.loss is None else f"{one.loss:.5f}",
            )
        )
    return rows

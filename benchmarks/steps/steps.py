"""Seconds and memory of a training step: mlxlab, plain MLX, mlx-lm's trainer, PyTorch; one process each, in turn."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.alternate import table
from benchmarks.steps.step_subjects import Shape
from mlxlab.errors import ConfigError

AVX2 = {
    "MLXLAB_NATIVE_ARCH": "haswell",
    "OPENBLAS_CORETYPE": "Haswell",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
BURST = (
    4.0  # seconds of steps per turn: the first step finds the CPU caches filled by other processes
)
NEEDS = {
    "torch": ("torch", "pip install torch (CPU build)"),
    "mlx_lm": ("mlx_lm", "pip install mlx-lm"),
}


@dataclass
class Measurement:
    """Figures of one subject, a value per burst."""

    name: str
    loss: float | None = None
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    bytes: int = 0
    error: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds) if self.seconds else float("nan")


def steps(
    size: str = "nano",
    model: str = "transformer,bert",
    compare_with: str = "",
    rounds: int = 5,
    dropout: float | None = None,
    bfloat16: bool = False,
    isa: str = "",
    only: str = "",
    rows: int = 8,
    length: int = 256,
    vocabulary: int = 5000,
    save: str | None = None,
) -> str:
    """Returns a table, and writes it to `save`.md and `save`.json.

    Args:
        size: options of model/size, separated by commas.
        model: transformer, bert or both.
        compare_with: torch, mlx_lm or both; neither is a dependency.
        rounds: bursts of steps of each subject, in turn.
        dropout: for all models; None for the value in model/*.yaml.
        bfloat16: whether products in bfloat16 are measured too.
        isa: avx2 lets nobody use wider instructions.
        only: subjects, separated by commas; all if it is empty.
        rows: of the batch, with `length` tokens each, of `vocabulary` different ones.
    """
    if isa not in ("", "avx2"):
        raise ConfigError(f"isa={isa}: expected avx2")
    shape = Shape(rows, length, vocabulary)
    subjects = ["simple", "optimized", "MLX's kernels", "plain MLX", *_others(compare_with)]
    if bfloat16:
        subjects += ["optimized bfloat16"] + ["PyTorch compiled bfloat16"] * ("PyTorch" in subjects)
    if unknown := set(chosen := only.split(",") if only else subjects) - set(subjects):
        raise ConfigError(f"only={unknown.pop()}: expected some of {', '.join(subjects)}")
    subjects = [name for name in subjects if name in chosen]
    defaults = {"transformer": 0.0, "bert": 0.1}
    results: list[dict[str, Any]] = []
    lines: list[tuple[str, ...]] = []
    for family in model.split(","):
        names = [name for name in subjects if name != "mlx-lm" or family == "transformer"]
        rate = defaults[family] if dropout is None else dropout
        for option in size.split(","):
            model_args = (family, option, str(rate), *map(str, astuple(shape)))
            measurements = bursts(
                names, ["benchmarks.steps.step_subjects"], model_args, rounds, AVX2 if isa else {}
            )
            figures = [vars(measurement) for measurement in measurements]
            results.append({"model": family, "size": option, "dropout": rate, "subjects": figures})
            lines += _rows(f"{family} {option}", measurements)
    head = (
        "model",
        "subject",
        "s/step",
        "min",
        "CPU s/step",
        "relative to the first",
        "peak MB",
        "initial loss",
    )
    title = f"step of {rows} x {length} tokens, {vocabulary} classes, float32, AdamW; medians of {rounds} bursts"
    text = "\n\n".join([table(title, [head, *lines]), *_summary(results)])
    if save is not None:
        Path(save).parent.mkdir(parents=True, exist_ok=True)
        Path(f"{save}.md").write_text(text + "\n")
        Path(f"{save}.json").write_text(
            json.dumps({"title": title, "results": results}, indent=1) + "\n"
        )
    return text


def _summary(results: list[dict[str, Any]]) -> list[str]:
    """The optimized step compared with others, over all models and sizes."""
    seconds = [
        {subject["name"]: subject["seconds"] for subject in result["subjects"]}
        for result in results
    ]
    medians = [
        {name: statistics.median(times) for name, times in each.items() if times}
        for each in seconds
    ]

    def ratios(over: str, under: str) -> list[float]:
        return sorted(each[over] / each[under] for each in medians if {over, under} <= each.keys())

    lines = []
    if stock := ratios("plain MLX", "optimized"):
        lines.append(
            f"plain MLX takes {stock[0]:.1f} to {stock[-1]:.1f} times as long as optimized"
        )
    if torch := ratios("optimized", "PyTorch"):
        lines.append(f"optimized takes {torch[0]:.2f} to {torch[-1]:.2f} of the time of PyTorch")
    if compiled := ratios("optimized", "PyTorch compiled"):
        lines.append(
            f"optimized takes {compiled[0]:.2f} to {compiled[-1]:.2f} of the time of PyTorch compiled"
        )
    if narrow := ratios("optimized bfloat16", "PyTorch compiled bfloat16"):
        lines.append(
            f"in bfloat16 it takes {narrow[0]:.2f} to {narrow[-1]:.2f} of the time of PyTorch compiled"
        )
    return lines


def _others(compare_with: str) -> list[str]:
    subjects = []
    for name in filter(None, compare_with.split(",")):
        module, command = NEEDS[name]
        if find_spec(module) is None:
            raise ConfigError(f"compare_with={name}: {module} is not installed; run: {command}")
        subjects += (
            ["PyTorch", "PyTorch compiled", "PyTorch one thread"] if name == "torch" else ["mlx-lm"]
        )
    return subjects


def bursts(
    subjects: Sequence[str],
    program: Sequence[str],
    args: Sequence[str],
    rounds: int,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> list[Measurement]:
    """Bursts of each subject, in turn; all processes stay alive, and one runs at a time.

    Args:
        program: its module, and arguments before the name of the subject; `args` come after it.
    """
    measurements = [Measurement(name) for name in subjects]
    workers = []
    for measurement in measurements:
        command = [sys.executable, "-m", *program, measurement.name, *args]
        workers.append(Worker(measurement, command, environment))
        workers[-1].start()
    for _ in range(rounds):
        for worker in workers:
            worker.burst()
    for worker in workers:
        worker.end()
    return measurements


class Worker:
    """A process of a subject: for every line "n" it takes n steps and prints a line of JSON."""

    def __init__(
        self, measurement: Measurement, command: list[str], environment: Mapping[str, str]
    ) -> None:
        self.measurement, self.count = measurement, 1
        pipe = subprocess.PIPE
        settings = {**os.environ, **environment}
        self.process = subprocess.Popen(
            command, env=settings, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
        )

    def start(self) -> None:
        """Runs the first steps, which compile, unmeasured."""
        self.measurement.loss = self._read().get("loss")
        self.run_steps(1)
        seconds = self.run_steps(1).get("seconds", BURST)
        self.count = max(1, round(BURST / seconds))

    def burst(self) -> None:
        answer = self.run_steps(self.count)
        if not self.measurement.error:
            self.measurement.seconds.append(answer["seconds"])
            self.measurement.cpu.append(answer["cpu"])
            self.measurement.bytes = answer["bytes"]

    def run_steps(self, steps: int) -> dict[str, Any]:
        if self.process.poll() is None and self.process.stdin is not None:
            self.process.stdin.write(f"{steps}\n")
            self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self.process.stdout.readline() if self.process.stdout is not None else ""
        if not line:
            self.measurement.error = f"exit code {self.process.wait()}"
            return {}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def _rows(title: str, measurements: list[Measurement]) -> list[tuple[str, ...]]:
    first = measurements[0].median
    rows: list[tuple[str, ...]] = []
    for measurement in measurements:
        if measurement.error:
            rows.append((title, measurement.name, measurement.error, *("",) * 5))
            continue
        rows.append(
            (
                title,
                measurement.name,
                f"{measurement.median:.3f}",
                f"{min(measurement.seconds):.3f}",
                f"{statistics.median(measurement.cpu):.3f}",
                f"{measurement.median / first:.2f} x",
                f"{measurement.bytes / 1e6:.0f}",
                "" if measurement.loss is None else f"{measurement.loss:.5f}",
            )
        )
    return rows

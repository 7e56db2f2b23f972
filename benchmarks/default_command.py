"""Trains on a file by the default command, and predicts another one, as a user would."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

SETTINGS = ("data.baselines=false", "tracking=none", "~callbacks.report")
CLOCK = "benchmarks.training_clock.TrainingClock"


class Cost(NamedTuple):
    """CPU seconds of a command, and of the training and the mixture in it."""

    command: float
    training: float


def train_and_predict(
    folder: Path, train: pd.DataFrame, test: pd.DataFrame, settings: Sequence[str]
) -> tuple[pd.DataFrame, Cost]:
    """The predictions for the rows of a test, and what the training cost.

    Args:
        folder: is made.
        settings: overrides of the command.
    """
    folder.mkdir()
    train_file, test_file = folder / "train.csv", folder / "test.csv"
    train.to_csv(train_file, index=False)
    test.to_csv(test_file, index=False)
    program = (sys.executable, "-m", "mlxlab")
    sources = (f"data.source={train_file}", f"data.valid_source={test_file}")
    run, clock = folder / "run", folder / "seconds.txt"
    timed = (f"+callbacks.clock={{_target_: {CLOCK}, file: {clock}}}", f"hydra.run.dir={run}")
    seconds = _run([*program, "train", *settings, *SETTINGS, *sources, *timed])
    answers = folder / "answers.csv"
    _run([*program, "predict", f"run={run}", f"input={test_file}", f"output={answers}"])
    return pd.read_csv(answers), Cost(seconds, float(clock.read_text(encoding="utf-8")))


def _run(command: Sequence[str]) -> float:
    """Runs a command; its CPU seconds."""
    with tempfile.TemporaryFile("w+") as output:
        environment = os.environ | {"MLXLAB_ALLOWED_TARGETS": CLOCK}
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            output.seek(0)
            raise RuntimeError(f"{' '.join(command)}\n{output.read()}")
    return usage.ru_utime + usage.ru_stime


def outputs_of(answers: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """Probabilities (N, C) of these classes; without classes numbers (N,)."""
    if not len(classes):
        return answers.iloc[:, -1].to_numpy(np.float64)
    outputs = np.zeros((len(answers), len(classes)))
    for number, name in enumerate(classes):
        column = f"probability_{name}"
        if column in answers:
            outputs[:, number] = answers[column]
    return outputs

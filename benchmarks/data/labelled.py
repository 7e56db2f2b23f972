"""Seconds to the first step and memory of a run on a large file of labelled texts."""

import csv
import tempfile
import time
from pathlib import Path
from typing import TypedDict

import numpy as np

from benchmarks.alternate import table
from benchmarks.new_process import run_module

WORDS = 20_000  # of the made-up language, drawn by Zipf's law
MARKED = 0.8  # share of texts with a word that tells the label
STEPS = 20
COLUMNS = (
    "cache",
    "first step after",
    "processor time",
    "peak while data is built",
    "data",
    "run, above 1,000 texts",
)
VOCAB_SIZE = 2048  # the same model for any number of texts


class Report(TypedDict):
    """What `labelled_subject` prints: times in seconds since 1970, resident memory in bytes."""

    start: float
    first: float
    cpu: float  # seconds of processor time until then, of all threads
    before: int  # before the data set is built
    building: int  # at the peak while it is built
    built: int  # afterwards
    peak: int  # of the whole run


def labelled(rows: int = 1_000_000, model: str = "bert", rounds: int = 1) -> str:
    """`data=text_classification` on `rows` texts of two labels, with an empty cache and with a warm one.

    The memory of the run, baselines included, is compared with that of the same model on 1,000 of the texts.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_texts(Path(folder, "few.csv"), 1000)
        write_texts(Path(folder, "texts.csv"), rows)
        size = Path(folder, "texts.csv").stat().st_size
        few = _run(folder, "few.csv", model)["peak"]
        cold = _run(folder, "texts.csv", model)
        warm = [_run(folder, "texts.csv", model) for _ in range(rounds)]
    runs = {
        "empty": cold,
        "warm": sorted(warm, key=lambda run: run["first"] - run["start"])[rounds // 2],
    }
    lines: list[tuple[str, ...]] = [COLUMNS]
    for name, run in runs.items():
        memory = (run["building"] - run["before"], run["built"] - run["before"], run["peak"] - few)
        seconds = (run["first"] - run["start"], run["cpu"])
        lines.append(
            (name, *(f"{x:.1f} s" for x in seconds), *(f"{bytes / 1e6:.0f} MB" for bytes in memory))
        )
    return table(
        f"{rows:,} texts ({size / 1e6:.0f} MB), model={model} model/size=nano, {STEPS} steps", lines
    )


def write_texts(path: Path, rows: int, seed: int = 0) -> None:
    """A CSV file with the columns text and label: 5 to 20 words, and in most texts one that tells the label."""
    random = np.random.default_rng(seed)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    words = ["".join(random.choice(syllables, random.integers(1, 4))) for _ in range(WORDS)]
    likely = 1 / np.arange(1, WORDS + 1)
    likely /= likely.sum()
    signs = {"negative": "dreadful", "positive": "splendid"}
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for first in range(0, rows, 100_000):
            count = min(100_000, rows - first)
            lengths = random.integers(5, 21, count)
            drawn = iter(random.choice(WORDS, int(lengths.sum()), p=likely).tolist())
            labels, marked = (
                random.integers(0, 2, count).tolist(),
                (random.random(count) < MARKED).tolist(),
            )
            for length, label, mark in zip(lengths.tolist(), labels, marked, strict=True):
                name = ("negative", "positive")[label]
                text = [words[next(drawn)] for _ in range(length)]
                writer.writerow([" ".join([*text, signs[name]] if mark else text), name])


def _run(folder: str, source: str, model: str) -> Report:
    overrides = [
        "data=text_classification",
        f"data.source={folder}/{source}",
        f"data.tokenizer.vocab_size={VOCAB_SIZE}",
        f"model={model}",
        "model/size=nano",
        f"trainer.max_steps={STEPS}",
        f"trainer.eval_every={STEPS}",
        "trainer.eval_batches=4",
        "tracking=none",
        f"hydra.run.dir={folder}/run-{time.time_ns()}",
    ]
    report: Report = run_module("data.labelled_subject", overrides, folder)
    return report

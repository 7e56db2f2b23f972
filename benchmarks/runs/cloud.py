"""Overhead of uploads: the same steps and checkpoints with and without copies in an object store."""

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

from annotated_types import Gt

from benchmarks.alternate import Trial, table
from benchmarks.subject import Subject
from mlxlab.errors import ServiceUnavailableError
from mlxlab.extensions.cloud.providers import UploadOptions, gcs
from mlxlab.extensions.cloud.upload import Uploads
from mlxlab.terminal.wording import percent
from mlxlab.training.checkpointer import Checkpointer

TESTS = Path(__file__).resolve().parents[2] / "tests"
BUCKET = "benchmark"
OPTIONS = UploadOptions(prefix="", required=True, keep=1, read_back=True, wait=60.0)


class Variant:
    """Steps with a checkpoint after the first, in a folder that may be uploaded meanwhile."""

    def __init__(self, subject: Subject, folder: Path, uploads: Uploads | None) -> None:
        self.subject, self.uploads = subject, uploads
        self.checkpointer = Checkpointer(1, 1, True, folder=folder)
        self.checkpointer.store.folder.mkdir(parents=True)

    def run(self, steps: int) -> None:
        for number in range(steps):
            result = self.subject.step()
            if number == 0:
                self.checkpointer.on_step(self.subject.context, self.subject.state, result)
        self.checkpointer.finish()

    def is_uploaded(self) -> bool:
        return self.uploads is None or not self.uploads.pending()


def cloud(
    size: str = "tiny",
    rounds: int = 5,
    steps: int = 60,
    rows: int = 8,
    megabytes: Annotated[float, Gt(0)] = 20.0,
) -> str:
    """Each round takes `steps` steps of a BERT in each variant, with one checkpoint.

    Args:
        rows: in a batch, of 64 tokens each.
        megabytes: bandwidth of the slow store, per second.
    """
    subject = Subject(size, rows=rows, length=64)
    stores = {"uploads": math.inf, f"uploads at {megabytes:g} MB/s": megabytes * 1e6}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        variants = {"no uploads": Variant(subject, folder / "none", None)}
        for number, (name, bandwidth) in enumerate(stores.items()):
            uploads = stack.enter_context(_uploads(folder / str(number), bandwidth))
            variants[name] = Variant(subject, folder / str(number), uploads)
        trials, in_time = _alternate(variants, rounds, steps)
        size_saved = sum(
            path.stat().st_size for path in (folder / "none").rglob("*") if path.is_file()
        )
    baseline = trials[0]
    head = (
        "variant",
        "ms/step",
        "slower",
        "processor ms/step",
        "more",
        "uploaded within the round",
    )
    body = [
        (
            trial.name,
            f"{1000 * trial.median / steps:.1f}",
            percent(trial.median / baseline.median - 1, signed=True),
            f"{1000 * trial.cpu_median / steps:.1f}",
            percent(trial.cpu_median / baseline.cpu_median - 1, signed=True),
            "-" if variants[trial.name].uploads is None else f"{in_time[trial.name]} of {rounds}",
        )
        for trial in trials
    ]
    title = f"{steps} steps at model/size={size} with one checkpoint of {size_saved / 1e6:.0f} MB, medians of {rounds}"
    return table(title, [head, *body])


def _alternate(
    variants: dict[str, Variant], rounds: int, steps: int
) -> tuple[list[Trial], dict[str, int]]:
    """As `alternate`, but a round begins when nothing is left to upload; and how often none was left at its end."""
    trials, in_time = {name: Trial(name) for name in variants}, dict.fromkeys(variants, 0)
    for number in range(-1, rounds):  # the first is a warm-up
        for name, variant in variants.items():
            trial = Trial(name) if number < 0 else trials[name]
            trial.run(lambda variant=variant: variant.run(steps))  # type: ignore[misc]
            in_time[name] += number >= 0 and variant.is_uploaded()
            while not variant.is_uploaded():
                time.sleep(0.1)
    return list(trials.values()), in_time


@contextmanager
def _uploads(folder: Path, bytes_per_second: float) -> Iterator[Uploads]:
    """Uploads of a folder to a bucket on loopback."""
    env = os.environ | {"PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-m", "support.object_stores.serve", BUCKET, str(bytes_per_second)]
    with subprocess.Popen(
        command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        if not (url := server.stdout.readline().strip()):
            raise ServiceUnavailableError(f"{TESTS}: the bucket of the tests does not start")
        with gcs(BUCKET, url, **OPTIONS).copies(folder, "run", None) as uploads:
            yield uploads

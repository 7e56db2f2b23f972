"""A finished run on few generated rows, that tests rerun and compare with."""

import tempfile
from functools import cache
from pathlib import Path

from support.processes import run_here, tiny_overrides

CHEAP = ["data.source=synthetic", "data.templates=[basic]", "data.augment.copies=1"]
START = [*tiny_overrides("trainer.max_steps=3", "trainer.eval_every=3"), *CHEAP]


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


@cache
def past_run() -> Path:
    """Its folder, which tests only read: trained once for all of them."""
    folder = Path(_folder().name) / "run"
    finished = run_here(*START, "name=first", f"hydra.run.dir={folder}")
    assert finished.returncode == 0, finished.stderr
    return folder

"""Shows or merges the per-example losses that callbacks.example_losses recorded.

    mlxlab example_losses top SOURCE ... [mode=hardest] [by=mean] [count=20]
    mlxlab example_losses merge SOURCE ... out=losses.parquet

top    the hardest or easiest examples: id, loss (mean, sum), kl, cross_entropy, targets, step
merge  one Parquet file of all sources, which data.select.source accepts

SOURCE is a run folder or a Parquet file. Of each id the latest row counts: within a run that of the latest step, among
several sources that of the latest time.

Examples
    mlxlab example_losses top outputs/2026-01-02/first by=kl
    mlxlab train data.select='{mode: hardest, percent: 25, source: outputs/2026-01-02/first}'
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mlxlab.cli.app import Action, command
from mlxlab.constraints import Size
from mlxlab.data import example_losses
from mlxlab.errors import DataError, WriteError

COLUMNS = ("id", "mean", "sum", "kl", "cross_entropy", "targets", "step")
SOURCES = (1, sys.maxsize)  # minimum and maximum number


@dataclass(frozen=True)
class TopOptions:
    """Options of `example_losses top`.

    Args:
        mode: the highest losses first, or the lowest.
        by: mean or sum of the loss over the targets of an example, or one of its terms.
        count: rows of the table.
    """

    mode: Literal["hardest", "easiest"] = "hardest"
    by: Literal["mean", "sum", "kl", "cross_entropy"] = "mean"
    count: Size = 20


@dataclass(frozen=True)
class MergeOptions:
    """Options of `example_losses merge`.

    Args:
        out: the Parquet file to write.
    """

    out: Path


def _top(options: TopOptions, sources: list[str]) -> None:
    """Prints the hardest or the easiest examples; ties in the order of their ids."""
    rows, by = example_losses.merge([Path(name) for name in sources]), options.by
    usable = np.isfinite(rows[by]) if by in rows else np.zeros(0, bool)
    if not usable.any():
        raise DataError(f"none of the {len(rows['id'])} examples has a finite {by}")
    indices = np.flatnonzero(usable)
    losses = rows[by][indices].astype(np.float64)
    ranks = -losses if options.mode == "hardest" else losses
    order = indices[np.lexsort((rows["id"][indices], ranks))][: options.count]
    print(f"{len(order)} {options.mode} of {len(indices)} examples, by {by}")
    print(" ".join(f"{name:>10}" for name in COLUMNS))
    for index in order:
        print(" ".join(_cell(rows[name][index]) for name in COLUMNS))


def _merge(options: MergeOptions, sources: list[str]) -> None:
    rows = example_losses.merge([Path(name) for name in sources])
    try:
        example_losses.write(rows, options.out)
    except OSError as error:
        raise WriteError(f"{options.out}: {error.strerror or error}") from None
    print(f"{options.out}: {len(rows['id'])} examples")


def _cell(value: np.generic) -> str:
    if isinstance(value, np.floating):
        return f"{'':>10}" if np.isnan(value) else f"{value:10.4g}"
    return f"{value:10}"


main = command(
    __doc__,
    {"top": Action(_top, TopOptions, names=SOURCES), "merge": Action(_merge, MergeOptions, names=SOURCES)},
)

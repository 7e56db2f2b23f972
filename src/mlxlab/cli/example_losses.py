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

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mlxlab.cli.app import run_command
from mlxlab.cli.args import parse_args
from mlxlab.config.suggest import suggestion
from mlxlab.constraints import Size
from mlxlab.data import example_losses
from mlxlab.errors import ConfigError, DataError, WriteError

COLUMNS = ("id", "mean", "sum", "kl", "cross_entropy", "targets", "step")
VERBS = ("top", "merge")
SOURCES = (1, 1000)  # minimum and maximum number


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


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    targets = [f"{__name__}.TopOptions", f"{__name__}.MergeOptions"]
    return run_command(__doc__, argv, _act, options=targets)


def _act(args: list[str]) -> None:
    verb, *rest = args
    if verb == "top":
        options, sources, _ = parse_args(rest, TopOptions, names=SOURCES)
        print(top(example_losses.merge([Path(name) for name in sources]), options.mode, options.by, options.count))
    elif verb == "merge":
        target, sources, _ = parse_args(rest, MergeOptions, names=SOURCES)
        rows = example_losses.merge([Path(name) for name in sources])
        try:
            example_losses.write(rows, target.out)
        except OSError as error:
            raise WriteError(f"{target.out}: {error.strerror or error}") from None
        print(f"{target.out}: {len(rows['id'])} examples")
    else:
        raise ConfigError(f"{verb}: expected top or merge{suggestion(verb, VERBS)}")


def top(rows: example_losses.Columns, mode: str, by: str, count: int) -> str:
    """A table of the hardest or the easiest; ties in the order of their ids."""
    usable = np.isfinite(rows[by]) if by in rows else np.zeros(0, bool)
    if not usable.any():
        raise DataError(f"none of the {len(rows['id'])} examples has a finite {by}")
    indices = np.flatnonzero(usable)
    losses = rows[by][indices].astype(np.float64)
    order = indices[np.lexsort((rows["id"][indices], -losses if mode == "hardest" else losses))][:count]
    lines = [[f"{name:>10}" for name in COLUMNS]]
    lines += [[_cell(rows[name][index]) for name in COLUMNS] for index in order]
    heading = f"{len(order)} {mode} of {len(indices)} examples, by {by}"
    return "\n".join([heading, *(" ".join(line) for line in lines)])


def _cell(value: np.generic) -> str:
    if isinstance(value, np.floating):
        return f"{'':>10}" if np.isnan(value) else f"{value:10.4g}"
    return f"{value:10}"

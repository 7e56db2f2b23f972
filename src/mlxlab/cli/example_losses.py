"""`examples`: losses by example, as callbacks.example_losses wrote them: joined into one file, or shown.

    examples.py top SOURCE ... [mode=hardest] [by=mean] [count=20]
    examples.py merge SOURCE ... out=losses.parquet

top    the hardest or easiest examples: id, loss (mean, sum), kl, cross_entropy, targets, step
merge  one Parquet file of them all: data.select.source takes it, like any other source

SOURCE is a run folder or a Parquet file. Of each id the latest row counts: within a run the one of the latest step,
among several sources the one of the latest time. by is mean or sum of the loss over an example's targets, kl or
cross_entropy.

Examples
    examples.py top outputs/2026-01-02/first by=kl
    train.py data.select='{mode: hardest, percent: 25, source: outputs/2026-01-02/first}'
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mlxlab.cli.app import run_program
from mlxlab.config.suggest import suggestion
from mlxlab.data import example_losses
from mlxlab.errors import ConfigError, DataError, WriteError

OPTIONS = {"top": {"mode": "hardest", "by": "mean", "count": "20"}, "merge": {"out": ""}}
CHOICES = {"mode": ("hardest", "easiest"), "by": ("mean", "sum", "kl", "cross_entropy")}
SHOWN = ("id", "mean", "sum", "kl", "cross_entropy", "targets", "step")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    return run_program(__doc__, argv, _act)


def _act(words: list[str]) -> None:
    verb, *rest = words
    if verb not in OPTIONS:
        raise ConfigError(f"{verb}: unknown{suggestion(verb, list(OPTIONS))}; one of {', '.join(OPTIONS)}")
    sources, options = parse(rest, OPTIONS[verb])
    rows = example_losses.merge(sources)
    if verb == "top":
        print(top(rows, options["mode"], options["by"], int(options["count"])))
        return
    out = Path(options["out"]).expanduser()
    try:
        example_losses.write(rows, out)
    except OSError as error:
        raise WriteError(f"{out}: {error.strerror or error}") from None
    print(f"{out}: {len(rows['id'])} examples")


def parse(words: Sequence[str], options: dict[str, str]) -> tuple[list[Path], dict[str, str]]:
    """The sources, and every option with its value.

    Raises:
        ConfigError: an unknown option, a value that it may not have, or no source.
    """
    found, sources = dict(options), []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or Path(word).exists():
            sources.append(Path(word).expanduser())
            continue
        if key not in options:
            raise ConfigError(f"{word}: unknown key{suggestion(key, list(options))}; one of {', '.join(options)}")
        if key in CHOICES and value not in CHOICES[key]:
            raise ConfigError(
                f"{word}: expected one of {', '.join(CHOICES[key])}{suggestion(value, list(CHOICES[key]))}"
            )
        if key == "count" and not (value.isdecimal() and 1 <= int(value[:9]) < 10**8):
            raise ConfigError(f"{word}: expected a whole number >= 1")
        found[key] = value
    if not sources:
        raise ConfigError("no source: expected a run folder or a Parquet file of losses by example")
    if found.get("out") == "":
        raise ConfigError("merge needs out=FILE.parquet")
    return sources, found


def top(rows: example_losses.Columns, mode: str, by: str, count: int) -> str:
    """A table of the hardest or the easiest; ties go to the lesser id."""
    usable = np.isfinite(rows[by]) if by in rows else np.zeros(0, bool)
    if not usable.any():
        raise DataError(f"none of the {len(rows['id'])} examples has a finite {by}")
    places = np.flatnonzero(usable)
    costs = rows[by][places].astype(np.float64)
    order = places[np.lexsort((rows["id"][places], -costs if mode == "hardest" else costs))][:count]
    lines = [[f"{name:>10}" for name in SHOWN]]
    lines += [[_cell(rows[name][place]) for name in SHOWN] for place in order]
    words = f"{len(order)} {mode} of {len(places)} examples, by {by}"
    return "\n".join([words, *(" ".join(line) for line in lines)])


def _cell(value: np.generic) -> str:
    if isinstance(value, np.floating):
        return f"{'':>10}" if np.isnan(value) else f"{value:10.4g}"
    return f"{value:10}"

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

import math
from pathlib import Path
from typing import Literal

import numpy as np

from mlxlab import terminal
from mlxlab.cli.print_json import print_json, print_result
from mlxlab.constraints import Size
from mlxlab.errors import ConfigError, DataError, WriteError
from mlxlab.extensions.example_losses import files
from mlxlab.markdown import markdown_table
from mlxlab.wording import counted

ACTIONS = {"top": "top", "merge": "merge"}
COLUMNS = ("id", "mean", "sum", "kl", "cross_entropy", "targets", "step")


def top(
    *sources: str,
    mode: Literal["hardest", "easiest"] = "hardest",
    by: Literal["mean", "sum", "kl", "cross_entropy"] = "mean",
    count: Size = 20,
    json: bool = False,
) -> None:
    """Prints the hardest or the easiest examples; ties in the order of their ids.

    Args:
        mode: the highest losses first, or the lowest.
        by: mean or sum of the loss over the targets of an example, or one of its terms.
        count: rows of the table.
        json: prints JSON instead of a table.
    """
    import pandas as pd

    rows = pd.DataFrame(files.merge(map(Path, _some(sources)))).reindex(columns=list(COLUMNS))
    usable = rows[np.isfinite(rows[by])]
    if usable.empty:
        raise DataError(f"none of the {len(rows):,} examples has a finite {by}")
    ranking = usable.sort_values([by, "id"], ascending=[mode == "easiest", True]).head(count)
    if json:
        print_json(ranking.to_dict("records"))
        return
    print(f"{len(ranking)} {mode} of {len(usable):,} examples, by {by}")
    rows = [[_cell(value) for value in row] for row in ranking.itertuples(index=False)]
    terminal.show(markdown_table(list(COLUMNS), rows, "lr"))


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def merge(*sources: str, out: Path, json: bool = False) -> None:
    """Merges per-example losses.

    Args:
        out: the Parquet file to write.
        json: prints JSON instead.
    """
    rows = files.merge(map(Path, _some(sources)))
    try:
        files.write(rows, out)
    except OSError as error:
        raise WriteError(f"{out}: {error.strerror or error}") from None
    print_result(
        {"output": str(out), "examples": len(rows["id"])},
        f"{out}: {counted(len(rows['id']), 'example')}",
        json,
    )


def _some(sources: tuple[str, ...]) -> tuple[str, ...]:
    if not sources:
        raise ConfigError("SOURCE: missing; expected run folders or Parquet files")
    return sources

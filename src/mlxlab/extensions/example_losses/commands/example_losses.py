"""Shows the per-example losses that callbacks.example_losses recorded.

    mlxlab example_losses top SOURCE [mode=hardest] [by=mean] [count=20]

top prints the hardest or easiest examples: id, loss (mean, sum), kl, cross_entropy, targets, step. SOURCE is a run
folder or a Parquet file with the same columns. Of each id the row of the latest step counts.

Examples
    mlxlab example_losses top outputs/2026-01-02/first by=kl
    mlxlab train data.select='{mode: hardest, percent: 25, source: outputs/2026-01-02/first}'
"""

import math
from pathlib import Path
from typing import Literal

import numpy as np

from mlxlab import terminal
from mlxlab.cli.app import print_json
from mlxlab.errors import DataError
from mlxlab.extensions.example_losses import files
from mlxlab.schema.constraints import Size
from mlxlab.terminal.tables import markdown_table

ACTIONS = {"top": "top"}
COLUMNS = ("id", "mean", "sum", "kl", "cross_entropy", "targets", "step")


def top(
    source: Path,
    mode: Literal["hardest", "easiest"] = "hardest",
    by: Literal["mean", "sum", "kl", "cross_entropy"] = "mean",
    count: Size = 20,
    json: bool = False,
) -> None:
    """Prints the hardest or the easiest examples; ties in the order of their ids.

    Args:
        source: a run folder with losses, or a Parquet file of them.
        mode: the highest losses first, or the lowest.
        by: mean or sum of the loss over the targets of an example, or one of its terms.
        count: rows of the table.
        json: prints JSON instead of a table.
    """
    import pandas as pd

    rows = pd.DataFrame(files.read(source)).reindex(columns=list(COLUMNS))
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

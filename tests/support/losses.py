"""Parquet files of per-example losses."""

from pathlib import Path

import numpy as np
import pandas as pd


def write_losses(columns: dict[str, np.ndarray], path: Path) -> None:
    """Writes columns of the same length to a file that `data.select.source` reads."""
    pd.DataFrame(columns).to_parquet(path, index=False)

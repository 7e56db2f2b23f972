"""Peak resident memory of `predict` over N and 10 N rows, each in a process of its own."""

import csv
import os
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

from benchmarks.alternate import table
from mlxlab.data.titanic.dataset import TitanicDataset
from mlxlab.errors import ConfigError

UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss


def predict_memory(run: str | None = None, rows: int = 10_000) -> str:
    """Peak resident memory in MB of 10^6 bytes, and rows per second.

    Args:
        run: a run of data=titanic.
        rows: N; the test rows of the Titanic, repeated.
    """
    if run is None or not Path(run).is_dir():
        raise ConfigError("suite=predict_memory: expected run=<a run folder of data=titanic>")
    lines: list[tuple[str, ...]] = [("rows", "peak MB", "rows/s")]
    with tempfile.TemporaryDirectory() as folder:
        for count in (rows, 10 * rows):
            source = Path(folder, f"{count}.csv")
            _write_rows(source, count)
            start = time.perf_counter()
            peak = _peak_of_predict(run, source, Path(folder, "out.csv"))
            lines.append(
                (f"{count:,}", f"{peak / 1e6:.0f}", f"{count / (time.perf_counter() - start):.0f}")
            )
    return table("mlxlab predict on the test rows of the Titanic, repeated", lines)


def _write_rows(path: Path, count: int) -> None:
    columns = TitanicDataset.test_rows()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(islice(cycle(list(zip(*columns.values(), strict=True))), count))


def _peak_of_predict(run: str, source: Path, output: Path) -> int:
    """Bytes; only those of this one process."""
    process = os.posix_spawn(
        sys.executable,
        [
            sys.executable,
            "-m",
            "mlxlab",
            "predict",
            f"run={run}",
            f"input={source}",
            f"output={output}",
        ],
        os.environ,
    )
    _, status, usage = os.wait4(process, 0)
    if status:
        raise RuntimeError(f"mlxlab predict: status {status}")
    return usage.ru_maxrss * UNIT

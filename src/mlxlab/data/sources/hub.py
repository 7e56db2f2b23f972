"""Data sets of Hugging Face: those of the hub, streamed at one commit, and those that are in memory.

`datasets` is imported only when a hub data set is opened (2.5 s). Neither `shuffle` nor `state_dict`
of the library is used: the first loses and repeats documents on resume, the second differs after one.
"""

import importlib.util
import logging
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

import pyarrow as pa

from mlxlab.data.sources.block import FIRST, Block, Columns, Start, block_of, digest_blocks
from mlxlab.data.sources.messages import first_line, require_columns
from mlxlab.errors import ConfigError, DataError, InputNotFoundError, ServiceUnavailableError
from mlxlab.terminal.program import install_command

if TYPE_CHECKING:
    import datasets

HTTP_CLIENTS = {"httpx", "httpx2", "httpcore", "requests", "aiohttp", "urllib3"}
TIMEOUT = 10  # seconds
RETRY_DELAY = 10.0  # seconds, on top of the retries of the libraries
RETRY_LIMIT = 900.0
BATCH_ROWS = 1000
log = logging.getLogger(__name__)

Dataset: TypeAlias = "datasets.Dataset | datasets.IterableDataset"


class HuggingFaceRows:
    """A `Source` of a data set: units are its shards. Classes are their names.

    When the hub stops answering, the next rows are retried for RETRY_LIMIT seconds.
    """

    def __init__(self, dataset: Dataset, name: str, fingerprint: str | None = None) -> None:
        if hasattr(dataset, "to_iterable_dataset"):  # It is in memory.
            name = f"{name} of {len(dataset)} rows"
            dataset = dataset.to_iterable_dataset()
        self.dataset = dataset
        self.name = name
        self.units: int = dataset.num_shards
        if fingerprint is None:
            first = islice(self.blocks(0, FIRST, None), 1)
            fingerprint = f"{name}:{digest_blocks(first)}"
        self.fingerprint = fingerprint

    def columns(self) -> Sequence[str]:
        return self.dataset.column_names or list(next(iter(self.dataset), {}))

    def blocks(self, unit: int, start: Start, columns: Columns) -> Iterator[Block]:
        row = start[1]
        deadline = time.monotonic() + RETRY_LIMIT
        while True:
            try:
                for batch in self._batches(unit, row, columns):
                    require_columns(columns or (), batch.schema.names, self.name)
                    yield block_of((0, row), batch)
                    row += len(batch)
                    deadline = time.monotonic() + RETRY_LIMIT
                return
            except ValueError as error:
                raise DataError(f"{self.name}: shard {unit}: {first_line(error)}") from None
            except Exception as error:
                library = type(error).__module__.split(".")[0]
                if not isinstance(error, OSError | RuntimeError) and library not in HTTP_CLIENTS:
                    raise
                message = f"{self.name}: the hub stopped answering: {first_line(error)}"
            if time.monotonic() + RETRY_DELAY > deadline:
                raise ServiceUnavailableError(message)
            log.warning("%s; retrying in %g s", message, RETRY_DELAY)
            time.sleep(RETRY_DELAY)

    def location(self, unit: int, number: int) -> str:
        return f"{self.name}: shard {unit}, row {number}"

    def text_bytes(self, column: str) -> int | None:
        split = (self.dataset.info.splits or {}).get(str(self.dataset.split))
        return getattr(split, "num_bytes", None)

    def _batches(self, unit: int, row: int, columns: Columns) -> Iterator[pa.RecordBatch]:
        rows = self.dataset.shard(self.units, unit)
        if columns is not None and rows.column_names is not None:
            rows = rows.select_columns(list(columns))
        if row:
            rows = rows.skip(row)
        for table in rows.with_format("arrow").iter(batch_size=BATCH_ROWS):
            for batch in table.combine_chunks().to_batches():
                yield self._with_class_names(batch)

    def _with_class_names(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with names instead of the numbers of classes; -1 is a row without a class."""
        from pyarrow import compute

        for name, feature in (self.dataset.features or {}).items():
            names = getattr(feature, "names", None)
            if names and name in batch.schema.names:
                column = batch.column(name)
                numbers = compute.if_else(compute.less(column, 0), None, column)
                cells = pa.array(names, pa.string()).take(numbers)
                batch = batch.set_column(batch.schema.names.index(name), name, cells)
        return batch


def open_huggingface(
    name: str, config: str | None, split: str, revision: str | None
) -> HuggingFaceRows:
    """A data set of the hub, at the current commit of `revision` (a branch, tag or commit).

    Raises:
        ServiceUnavailableError: no `datasets` package, or no network.
        InputNotFoundError: the data set or the revision does not exist, or is gated.
        ConfigError: the config or the split does not exist.
    """
    if importlib.util.find_spec("datasets") is None:
        command = install_command("hub")
        raise ServiceUnavailableError(f"{name}: the hub needs the package datasets ({command})")
    commit = _commit(name, revision)
    splits = _load(name, config, commit)
    if split not in splits:
        raise ConfigError(f"data.reading.split={split}: {name} has {', '.join(splits)}")
    label = "/".join(filter(None, (name, config, split)))
    fingerprint = f"{name}@{commit}:{config}:{split}"
    return HuggingFaceRows(splits[split], f"{label}@{commit[:8]}", fingerprint)


def _commit(name: str, revision: str | None) -> str:
    from huggingface_hub import HfApi, errors

    try:
        return HfApi().dataset_info(name, revision=revision, timeout=TIMEOUT).sha or ""
    except errors.RevisionNotFoundError:
        raise InputNotFoundError(f"{name}: there is no revision {revision!r} on the hub") from None
    except errors.RepositoryNotFoundError:
        missing = "no such file or folder, and no such data set on the hub that is open to you"
        raise InputNotFoundError(f"{name}: {missing}") from None
    except Exception as error:
        raise ServiceUnavailableError(
            f"{name}: the hub cannot be reached ({first_line(error)})"
        ) from None


def _load(name: str, config: str | None, commit: str) -> "dict[str, datasets.IterableDataset]":
    import datasets

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(name, config, revision=commit, streaming=True)
    except ValueError as error:
        where = f"data.reading.config={config}: {name}"
        raise ConfigError(f"{where}: {first_line(error)}") from None
    except (OSError, RuntimeError) as error:
        raise ServiceUnavailableError(
            f"{name}: the hub cannot be read ({first_line(error)})"
        ) from None

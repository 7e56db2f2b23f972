"""Data sets of the Hugging Face hub, streamed a window at a time.

`datasets` is imported only when a hub data set is opened (2.5 s). Shards are permuted in every epoch, rows are read in
order; a position is a shard and a row, and seeking skips a table at a time. Neither `shuffle` nor `state_dict` of the
library is used: the first loses and repeats documents on resume, the second differs after a resume.
"""

import importlib.util
import logging
import time
from collections.abc import Iterator
from difflib import get_close_matches
from functools import partial
from typing import Any

from mlxlab.data.rng import Stream, permutation
from mlxlab.data.text.document import Document, Position
from mlxlab.data.text.sources.error_budget import ErrorBudget, OnError
from mlxlab.data.text.sources.record_boundaries import MAX_RECORD
from mlxlab.data.text.sources.record_parsers import checked_text, missing_column, refuse_surrogates
from mlxlab.data.text.sources.sequential import MEAN_CHARACTERS
from mlxlab.errors import ConfigError, DataError, InputNotFoundError, ServiceUnavailableError

ROW_BITS = 40  # bits of a document id that hold the row in its shard
HTTP_CLIENTS = {"httpx", "httpx2", "httpcore", "requests", "aiohttp", "urllib3"}  # errors outside OSError
TIMEOUT = 10  # seconds
RETRY_DELAY, RETRY_LIMIT = 10.0, 900.0  # seconds, on top of the retries of the libraries
LOCAL = "name local files with data.source=<file, folder or glob of .txt, .jsonl, .parquet or .csv>"

ShardPosition = tuple[int, int]  # index of a shard in the epoch's order, rows read of it
log = logging.getLogger(__name__)


class HuggingFaceSource:
    """A split of a data set, at one commit.

    Args:
        stream: an IterableDataset.
        name: for messages.
        fingerprint: of commit, config and split.
        column: of the text.
        window: maximum number of documents in a window; fewer if they are long.
    """

    def __init__(
        self, stream: Any, name: str, fingerprint: str, column: str, error_budget: ErrorBudget, window: int
    ) -> None:
        self.stream, self.name, self.column, self.error_budget, self.window = stream, name, column, error_budget, window
        self.fingerprint = f"{fingerprint}:{column},{window}"
        sizes = getattr(stream.info, "splits", None) or {}
        self.bytes = getattr(sizes.get(str(stream.split)), "num_bytes", None) or None

    @property
    def skipped_records(self) -> int:
        return self.error_budget.skipped_records

    def windows(self, seed: int, epoch: int, position: Position = None) -> Iterator[tuple[Position, list[Document]]]:
        """See `DocumentSource`. A position is [index of the shard in the epoch's order, rows read of it]."""
        count = self.stream.num_shards
        order = permutation(count, seed, Stream.SHARD_ORDER, epoch)
        first, row = _check(position, count)
        empty = position is None
        for index in range(first, count):
            for start, documents in self._shard(index, int(order[index]), row):
                self.error_budget.valid_records += len(documents)
                self.error_budget.check()
                if documents:
                    empty = False
                    yield list(start), documents  # a position is JSON: a resumed run compares it with a saved one
            row = 0
        self.error_budget.check(at_end=True)
        if empty:
            raise DataError(f"{self.name}: contains no text, only empty records")

    def _shard(self, index: int, shard: int, row: int) -> Iterator[tuple[ShardPosition, list[Document]]]:
        """The windows of a shard; the last one ends with the shard.

        When the hub stops answering, the current window is retried for `RETRY_LIMIT` seconds.
        """
        start = (index, row)
        last_success = time.monotonic()
        while True:
            try:
                for window_start, documents, end in self._read(start, shard):
                    yield window_start, documents
                    start, last_success = end, time.monotonic()
                return
            except ValueError as error:
                raise DataError(f"{self.name}: shard {shard}: {_first_line(error)}") from None
            except Exception as error:
                if not _is_network_error(error):
                    raise
                self._wait(error, last_success)

    def _read(self, start: ShardPosition, shard: int) -> Iterator[tuple[ShardPosition, list[Document], ShardPosition]]:
        """The windows of a shard from `start` on, each with its start and end."""
        index, row = start
        stream = self.stream.shard(self.stream.num_shards, shard)
        documents: list[Document] = []
        size = 0
        for example in stream.skip(row) if row else stream:
            row += 1
            text = self._text(example, shard, row)
            if text and not text.isspace():
                documents.append(Document(shard << ROW_BITS | row, text))
                size += len(text)
            if len(documents) >= self.window or size >= self.window * MEAN_CHARACTERS:
                end = (index, row)
                yield start, documents, end
                start, documents, size = end, [], 0
        yield start, documents, start

    def _wait(self, error: Exception, last_success: float) -> None:
        if time.monotonic() - last_success + RETRY_DELAY > RETRY_LIMIT:
            raise ServiceUnavailableError(f"{self.name}: the hub stopped answering: {_first_line(error)}") from None
        log.warning("%s: the hub does not answer (%s); retrying in %g s", self.name, _first_line(error), RETRY_DELAY)
        time.sleep(RETRY_DELAY)

    def _text(self, example: dict[str, Any], shard: int, row: int) -> str:
        try:
            if self.column not in example:
                raise ValueError(missing_column(self.column, list(example)))
            text = checked_text(example[self.column], self.column)
            if len(text) > MAX_RECORD:
                raise ValueError(f"a text of {len(text)} characters, expected <= {MAX_RECORD}")
            refuse_surrogates(text)
            return text
        except ValueError as error:
            self.error_budget.skip(
                (shard, row), partial("{}: shard {}, row {}: {}".format, self.name, shard, row, error)
            )
            return ""


def open_huggingface(
    name: str, config: str | None, split: str, revision: str | None, column: str, on_error: OnError, window: int
) -> HuggingFaceSource:
    """A data set of the hub, at the current commit of `revision` (a branch, tag or commit; None is `main`).

    Raises:
        ServiceUnavailableError: no `datasets` package, no network, or a gated data set.
        InputNotFoundError: the data set or the revision does not exist.
        ConfigError: the config or the split does not exist.
        DataError: the column does not exist.
    """
    if importlib.util.find_spec("datasets") is None:
        raise ServiceUnavailableError(
            f"{name}: the hub needs the package datasets (pip install 'mlxlab[hub]'), or {LOCAL}"
        )
    commit = _commit(name, revision)
    stream = _load(name, config, split, commit)
    label = "/".join(segment for segment in (name, config, split) if segment) + f"@{commit[:8]}"
    columns = stream.column_names
    if columns is not None and column not in columns:
        raise DataError(f"{label}: {missing_column(column, columns)}")
    if columns is not None:
        stream = stream.select_columns([column])
    return HuggingFaceSource(stream, label, f"{name}@{commit}:{config}:{split}", column, ErrorBudget(on_error), window)


def _commit(name: str, revision: str | None) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return HfApi().dataset_info(name, revision=revision, timeout=TIMEOUT).sha or ""
    except GatedRepoError:
        raise ServiceUnavailableError(
            f"{name}: a gated data set: request access and run `hf auth login`, or {LOCAL}"
        ) from None
    except RevisionNotFoundError:
        raise InputNotFoundError(f"{name}: there is no revision {revision!r} on the hub") from None
    except RepositoryNotFoundError:
        raise InputNotFoundError(f"{name}: no such file or folder, and no such data set on the hub") from None
    except Exception as error:
        raise ServiceUnavailableError(f"{name}: the hub cannot be reached ({_first_line(error)}); {LOCAL}") from None


def _load(name: str, config: str | None, split: str, commit: str) -> Any:
    import datasets

    datasets.disable_progress_bars()
    try:
        splits = datasets.load_dataset(name, config, revision=commit, streaming=True)
    except ValueError as error:
        if "config" in str(error).lower():
            raise ConfigError(f"data.reading.config={config}: {name}: {_first_line(error)}") from None
        raise DataError(f"{name}: {_first_line(error)}") from None
    except (OSError, RuntimeError) as error:
        raise ServiceUnavailableError(f"{name}: the hub cannot be read ({_first_line(error)}); {LOCAL}") from None
    if split not in splits:
        close = get_close_matches(split, splits, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"data.reading.split={split}: {name} has {', '.join(splits)}{hint}")
    return splits[split]


def _check(position: Position, count: int) -> ShardPosition:
    match position:
        case None:
            return 0, 0
        case [int(index), int(row)] if 0 <= index < count and row >= 0:
            return index, row
    raise DataError(f"the saved position is malformed: expected a shard in 0..{count - 1} and a row, got {position!r}")


def _is_network_error(error: Exception) -> bool:
    return isinstance(error, OSError | RuntimeError) or type(error).__module__.split(".")[0] in HTTP_CLIENTS


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]

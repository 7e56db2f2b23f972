"""Data sets of the Hugging Face hub, streamed: nothing is downloaded beforehand, no more than a window is held.

`datasets` is imported only here, and only when a hub data set is opened (2.5 s). Its shards come in an order drawn
anew each epoch, documents of a shard in theirs; a place is a shard and the number of its rows that come before, which
are passed over a table at a time. The library's own `shuffle` is not used: it loses and repeats documents at a resume;
nor is its own state: that of a resumed run differs from that of one that went through.
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
from mlxlab.data.text.sources.sequential import CHARACTERS
from mlxlab.errors import ConfigError, DataError, InputNotFoundError, ServiceUnavailableError

ROWS = 40  # bits of an id that count rows of a shard
CLIENTS = {"httpx", "httpx2", "httpcore", "requests", "aiohttp", "urllib3"}  # whose errors are their own
SECONDS = 10  # to wait for the hub's first answer
WAIT, PATIENCE = 10.0, 900.0  # seconds between trials of ours, and for how long; the libraries' own come before
LOCAL = "name local files with data.source=<file, folder or glob of .txt, .jsonl, .parquet or .csv>"

ShardPosition = tuple[int, int]  # index of a shard in the epoch's order, rows of it before
log = logging.getLogger(__name__)


class HuggingFaceSource:
    """A split of a data set, at one commit.

    Args:
        stream: an IterableDataset.
        name: what it is called in messages.
        fingerprint: of the commit and of what was chosen of it.
        column: holds the text.
    """

    def __init__(
        self, stream: Any, name: str, fingerprint: str, column: str, tolerance: ErrorBudget, window: int
    ) -> None:
        self.stream, self.name, self.column, self.tolerance, self.window = stream, name, column, tolerance, window
        self.fingerprint = f"{fingerprint}:{column},{window}"
        sizes = getattr(stream.info, "splits", None) or {}
        self.bytes = getattr(sizes.get(str(stream.split)), "num_bytes", None) or None

    @property
    def skipped_records(self) -> int:
        return self.tolerance.skipped_records

    def windows(self, seed: int, epoch: int, position: Position = None) -> Iterator[tuple[Position, list[Document]]]:
        """See `Source`. A place is [shard in the epoch's order, rows of it before]."""
        count = self.stream.num_shards
        order = permutation(count, seed, Stream.SHARD_ORDER, epoch)
        first, row = _check(position, count)
        empty = position is None
        for index in range(first, count):
            for here, documents in self._shard(index, int(order[index]), row):
                self.tolerance.sound += len(documents)
                self.tolerance.judge()
                if documents:
                    empty = False
                    yield here, documents
            row = 0
        self.tolerance.judge(at_end=True)
        if empty:
            raise DataError(f"{self.name}: there is no text in it, only empty records")

    def _shard(self, index: int, shard: int, row: int) -> Iterator[tuple[ShardPosition, list[Document]]]:
        """The windows of a shard. A window ends with its shard.

        Where the hub stops answering, the window is begun again until it answers or `PATIENCE` is used up.
        """
        here = (index, row)
        good = time.monotonic()
        while True:
            try:
                for place, documents, after in self._read(here, shard):
                    yield place, documents
                    here, good = after, time.monotonic()
                return
            except ValueError as error:
                raise DataError(f"{self.name}: shard {shard}: {_first_line(error)}") from None
            except Exception as error:
                if not _is_of_network(error):
                    raise
                self._wait(error, good)

    def _read(self, here: ShardPosition, shard: int) -> Iterator[tuple[ShardPosition, list[Document], ShardPosition]]:
        """The windows of a shard from a place on, each with the place after it."""
        index, row = here
        stream = self.stream.shard(self.stream.num_shards, shard)
        documents: list[Document] = []
        size = 0
        for example in stream.skip(row) if row else stream:
            row += 1
            text = self._text(example, shard, row)
            if text and not text.isspace():
                documents.append(Document(shard << ROWS | row, text))
                size += len(text)
            if len(documents) >= self.window or size >= self.window * CHARACTERS:
                after = (index, row)
                yield here, documents, after
                here, documents, size = after, [], 0
        yield here, documents, here

    def _wait(self, error: Exception, good: float) -> None:
        if time.monotonic() - good + WAIT > PATIENCE:
            raise ServiceUnavailableError(f"{self.name}: the hub stopped answering: {_first_line(error)}") from None
        log.warning("%s: the hub does not answer (%s); tried again in %g s", self.name, _first_line(error), WAIT)
        time.sleep(WAIT)

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
            self.tolerance.fault((shard, row), partial("{}: shard {}, row {}: {}".format, self.name, shard, row, error))
            return ""


def open_huggingface(
    name: str, config: str | None, split: str, revision: str | None, column: str, on_error: OnError, window: int
) -> HuggingFaceSource:
    """A data set of the hub, at the commit that `revision` (a branch, tag or commit; None is `main`) is now.

    Raises:
        ServiceUnavailableError: no `datasets` package, no network, or a set one has to ask for.
        InputNotFoundError: there is no such set or revision.
        ConfigError: it has no such config or split.
        DataError: it has no such column.
    """
    if importlib.util.find_spec("datasets") is None:
        raise ServiceUnavailableError(
            f"{name}: the hub needs the package datasets (pip install 'mlxlab[hub]'), or {LOCAL}"
        )
    commit = _commit(name, revision)
    stream = _load(name, config, split, commit)
    label = "/".join(part for part in (name, config, split) if part) + f"@{commit[:8]}"
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
        return HfApi().dataset_info(name, revision=revision, timeout=SECONDS).sha or ""
    except GatedRepoError:
        raise ServiceUnavailableError(
            f"{name}: its owner has to let you in (log in by `hf auth login`), or {LOCAL}"
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


def _is_of_network(error: Exception) -> bool:
    return isinstance(error, OSError | RuntimeError) or type(error).__module__.split(".")[0] in CLIENTS


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]

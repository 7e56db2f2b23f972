"""Data sets of the Hugging Face hub, streamed.

`datasets` is imported only when a hub data set is opened (2.5 s). A cursor is (rows read of the shard, 0). Neither
`shuffle` nor `state_dict` of the library is used: the first loses and repeats documents on resume, the second differs
after a resume.
"""

import importlib.util
import logging
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from mlxlab.data.text.sources.records import missing_column
from mlxlab.errors import ConfigError, DataError, InputNotFoundError, ServiceUnavailableError
from mlxlab.program import install_command

if TYPE_CHECKING:
    import datasets

HTTP_CLIENTS = {
    "httpx",
    "httpx2",
    "httpcore",
    "requests",
    "aiohttp",
    "urllib3",
}  # errors outside OSError
TIMEOUT = 10  # seconds
RETRY_DELAY, RETRY_LIMIT = 10.0, 900.0  # seconds, on top of the retries of the libraries
LOCAL = "name local files with data.source=<file, folder or glob of .txt, .jsonl, .parquet or .csv>"
log = logging.getLogger(__name__)


class HubSplit:
    """A split of a data set, at one commit. Its shards are read forwards."""

    def __init__(self, stream: "datasets.IterableDataset", name: str, fingerprint: str) -> None:
        self.stream, self.name, self.fingerprint = stream, name, fingerprint
        self.num_shards = int(stream.num_shards)

    def select(self, columns: list[str]) -> "HubSplit":
        """The split with some of its columns; DataError if one does not exist."""
        if (names := self.stream.column_names) is None:
            return self
        for column in columns:
            if column not in names:
                raise DataError(f"{self.name}: {missing_column(column, names)}")
        return HubSplit(self.stream.select_columns(columns), self.name, self.fingerprint)

    def rows(self, shard: int, row: int) -> Iterator[Mapping[str, object]]:
        """The rows of a shard from `row` on.

        When the hub stops answering, the next row is retried for `RETRY_LIMIT` seconds.
        """
        last_success = time.monotonic()
        while True:
            try:
                stream = self.stream.shard(self.num_shards, shard)
                for example in stream.skip(row) if row else stream:
                    row += 1
                    yield example
                    last_success = time.monotonic()
                return
            except ValueError as error:
                raise DataError(f"{self.name}: shard {shard}: {_first_line(error)}") from None
            except Exception as error:
                library = type(error).__module__.split(".")[0]
                if not isinstance(error, OSError | RuntimeError) and library not in HTTP_CLIENTS:
                    raise
                if time.monotonic() - last_success + RETRY_DELAY > RETRY_LIMIT:
                    message = f"{self.name}: the hub stopped answering: {_first_line(error)}"
                    raise ServiceUnavailableError(message) from None
                log.warning("%s: %s; retrying in %g s", self.name, _first_line(error), RETRY_DELAY)
                time.sleep(RETRY_DELAY)


def open_huggingface(name: str, config: str | None, split: str, revision: str | None) -> HubSplit:
    """A data set of the hub, at the current commit of `revision` (a branch, tag or commit; None is `main`).

    Raises:
        ServiceUnavailableError: no `datasets` package, no network, or a gated data set.
        InputNotFoundError: the data set or the revision does not exist.
        ConfigError: the config or the split does not exist.
    """
    if importlib.util.find_spec("datasets") is None:
        message = (
            f"{name}: the hub needs the package datasets ({install_command('hub')}), or {LOCAL}"
        )
        raise ServiceUnavailableError(message)
    commit = _commit(name, revision)
    splits = _load(name, config, commit)
    if split not in splits:
        raise ConfigError(f"data.reading.split={split}: {name} has {', '.join(splits)}")
    label = "/".join(filter(None, (name, config, split))) + f"@{commit[:8]}"
    return HubSplit(splits[split], label, f"{name}@{commit}:{config}:{split}")


def _commit(name: str, revision: str | None) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return HfApi().dataset_info(name, revision=revision, timeout=TIMEOUT).sha or ""
    except GatedRepoError:
        message = f"{name}: a gated data set: request access and run `hf auth login`, or {LOCAL}"
        raise ServiceUnavailableError(message) from None
    except RevisionNotFoundError:
        raise InputNotFoundError(f"{name}: there is no revision {revision!r} on the hub") from None
    except RepositoryNotFoundError:
        raise InputNotFoundError(
            f"{name}: no such file or folder, and no such data set on the hub"
        ) from None
    except Exception as error:
        raise ServiceUnavailableError(
            f"{name}: the hub cannot be reached ({_first_line(error)}); {LOCAL}"
        ) from None


def _load(name: str, config: str | None, commit: str) -> "dict[str, datasets.IterableDataset]":
    import datasets

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(name, config, revision=commit, streaming=True)
    except ValueError as error:
        if "config" in str(error).lower():
            raise ConfigError(
                f"data.reading.config={config}: {name}: {_first_line(error)}"
            ) from None
        raise DataError(f"{name}: {_first_line(error)}") from None
    except (OSError, RuntimeError) as error:
        raise ServiceUnavailableError(
            f"{name}: the hub cannot be read ({_first_line(error)}); {LOCAL}"
        ) from None


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]

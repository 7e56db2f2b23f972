"""Whether the run to resume and the data files that a config names exist; they are not opened."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.checkpoint.names import KEYWORD, RESUME_KEYWORDS, split_path
from mlxlab.config.issues import value_at
from mlxlab.distributed.launch_env import rank
from mlxlab.errors import DataError, InputNotFoundError

if TYPE_CHECKING:
    from omegaconf import DictConfig

_SOURCES = ("source", "valid_source", "test_source", "validation.source")  # of all data sets
_NO_FILES = ("sklearn:", "synthetic")


def check_named_run(config: "DictConfig") -> None:
    """Raises InputNotFoundError for a run to resume whose folder does not exist."""
    resume = config.get("resume")
    if resume in (None, "auto") or "://" in resume or KEYWORD.fullmatch(resume) or rank() > 0:
        return
    try:
        split_path(resume, RESUME_KEYWORDS)
    except InputNotFoundError as error:
        raise InputNotFoundError(f"resume={error}") from None


def check_named_files(config: "DictConfig") -> None:
    """Raises InputNotFoundError as `check_named_run`, or for a source that is no file, folder, glob or hub data set."""
    from mlxlab.config.check import resolve
    from mlxlab.data.text.sources.file_set import find_files
    from mlxlab.data.text.sources.open import is_local

    check_named_run(config)
    values, _ = resolve(config.data)
    for key, source in _named_sources(values):
        if source.startswith(_NO_FILES) or os.path.lexists(Path(source).expanduser()):
            continue
        try:
            with suppress(DataError):  # of several formats, of which the data set may read one
                if is_local(source):
                    find_files(source)
        except InputNotFoundError as error:
            raise InputNotFoundError(f"data.{key}: {error}") from None


def _named_sources(data: dict[str, object]) -> Iterator[tuple[str, str]]:
    """(key, source) of each that is set; a mixture replaces `source`."""
    mixture = data.get("mixture")
    if isinstance(mixture, dict):
        yield from (("mixture", str(source)) for source in mixture)
    for key in _SOURCES[1 if mixture else 0 :]:
        if isinstance(source := value_at(data, key), str):
            yield key, source

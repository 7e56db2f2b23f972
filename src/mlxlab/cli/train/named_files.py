"""Whether the run to resume and the data files that a config names exist; they are not opened."""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.checkpoint.names import (
    KEYWORD,
    RESUME_KEYWORDS,
    can_resume,
    check_rounds_file,
    split_path,
)
from mlxlab.config.issues import one_line, value_at
from mlxlab.config.resume_overrides import override_name
from mlxlab.distributed.launch_env import rank
from mlxlab.errors import CheckpointUnavailableError, DataError, InputNotFoundError
from mlxlab.nearest import no_such_folder
from mlxlab.program import join, quoted, run_dir_override

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)

_SOURCES = ("source", "valid_source", "test_source")  # of all data sets
_TASK = {"experiment", "model", "data"}  # groups that say what to train
_NO_TASK = {"hydra.run.dir", "resume", "trainer.max_steps", "trainer.epochs", "trainer.max_tokens"}
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


def check_run_to_continue(overrides: Sequence[str], *, begins: bool = True) -> None:
    """Refuses a command with `resume=auto` where no run can be continued, unless it says what to train.

    It would train the default experiment: in a misspelt folder, or, with none or a part of the overrides that began it,
    in that of a run that ended before a checkpoint. Otherwise a line says that a new run begins.

    Args:
        begins: whether the command trains, which `--dry-run` does not.

    Raises:
        InputNotFoundError: the folder holds no run.
        CheckpointUnavailableError: the run has no checkpoint, or rounds without their file; the message says what to
            do instead.
    """
    from mlxlab.config.hydra.overrides import typed_values

    values = typed_values(overrides)
    folder = Path(values.get("hydra.run.dir", ""))
    if (
        values.get("resume") != "auto"
        or "hydra.run.dir" not in values
        or rank() > 0
        or can_resume(folder)
    ):
        return
    check_rounds_file(folder)
    from mlxlab.experiment.manifest import FILE, read_manifest

    says_task = any(re.split("[./]", key)[0] in _TASK for key in values)
    has_run = os.path.lexists(folder / FILE)
    if not has_run and not says_task:
        got = no_such_folder(folder, "a run to continue")
        if folder.is_dir():
            got = f"{folder}: a folder without a run, expected one to continue"
        raise InputNotFoundError(f"hydra.run.dir={got}")
    began = read_manifest(folder).get("inputs", {}).get("overrides") if has_run else None
    typed = {*map(override_name, overrides)}
    if has_run and not (
        says_task if began is None else typed >= {*map(override_name, began)} - _NO_TASK
    ):
        again = "repeat the command that began it"
        if began is not None:
            options = f"{quoted(run_dir_override(folder))} {one_line(join(began), 500)}"
            again = f"begin it again with: mlxlab train {options}"
        raise CheckpointUnavailableError(
            f"{folder}: its run ended before the first checkpoint; {again}"
        )
    if begins and "${" not in str(folder):  # the name of a new folder
        log.info(f"{folder}: no checkpoint, a new run begins")


def check_named_files(config: "DictConfig") -> None:
    """Raises InputNotFoundError as `check_named_run`, or for a source that is no file, folder, glob or hub data set."""
    from mlxlab.config.check import resolve
    from mlxlab.data.sources.files import find_files
    from mlxlab.data.sources.open import is_local

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

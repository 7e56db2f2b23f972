"""Trains the run of a `run.lock` again, in a new run folder, and compares the two."""

import logging
from pathlib import Path
from typing import Any

from mlxlab.config.admission import admit
from mlxlab.config.check import check_stored_config
from mlxlab.config.hydra.compose import compose_checked
from mlxlab.errors import ConfigError, UserError
from mlxlab.files.atomic import write_json
from mlxlab.past_runs.command_lines import CommandLine
from mlxlab.past_runs.reproduction import Comparison, compare
from mlxlab.past_runs.run_lock import RunLock, read_lock
from mlxlab.run.context import remove_unused
from mlxlab.run.entry import run_config
from mlxlab.run.resume.kernels import mode_to_reproduce
from mlxlab.terminal.program import run_dir_override
from mlxlab.terminal.wording import one_line
from mlxlab.training.distributed.launch_env import check_parallel

FILE = "reproduction.json"
REPLACED = ("tracking", "cloud", "signals", "resume", "rerun")  # keys that a reproduction decides

logger = logging.getLogger(__name__)


def reproduce(path: Path, folder: Path, tolerance: float, *, trusted: bool = False) -> Comparison:
    """Trains the run of a run folder or lock file again in `folder`, which does not exist yet.

    Writes the comparison to `reproduction.json` there. Nothing is tracked or uploaded, whatever the lock says; if it is
    trusted, its callbacks may write elsewhere.

    Raises:
        InputNotFoundError, DataError: there is no lock, or it is damaged; or the same for what the run reads.
        NotAllowedError: it asks for a target that may not be built; or as `admit`.
        ConfigError: the run started from a checkpoint of another run.
        UserError: as `run_config`.
    """
    lock = read_lock(path)
    config = config_to_reproduce(lock, str(path), trusted=trusted)
    if lock["changed_at"]:
        changed = ", ".join(map(str, lock["changed_at"][:5]))
        logger.warning(
            f"{path}: a resume changed the config at step {changed}; the new run starts with the last one"
        )
    check_parallel(config["trainer"]["parallel"])
    config["backend"] |= {"native": mode_to_reproduce(lock["machine"].get("kernels", ""))}
    first = [*lock["overrides"], run_dir_override(folder)]
    command = CommandLine(lock["overrides"], lock["choices"], first)
    try:
        run_config(config, folder, command=command)
    except UserError:
        remove_unused(folder)
        raise
    comparison = compare(lock, read_lock(folder), tolerance)
    write_json(folder / FILE, comparison)
    return comparison


def config_to_reproduce(lock: RunLock, name: str, *, trusted: bool = False) -> dict[str, Any]:
    """What the config of a lock, called `name` in messages, may decide; raises as `admit`."""
    if lock["forked_from"] is not None:
        start = one_line(lock["forked_from"], 200)
        remedy = (
            "train from it again with mlxlab train rerun=RUN, then compare with mlxlab runs diff"
        )
        raise ConfigError(
            f"{name}: started from the checkpoint {start}, which a lock does not hold; {remedy}"
        )
    stored = check_stored_config(lock["config"], name)
    current = compose_checked(["tracking=none"])
    config = admit(stored, current, name, REPLACED, trusted=trusted)
    return {**config, **{key: current[key] for key in REPLACED}}

"""Opens the folder of a run: locks it, listens to signals, keeps its record; sets an earlier run in it aside.

MLX is imported last.
"""

import errno
import fcntl
import logging
import os
import shutil
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    redirect_stderr,
    redirect_stdout,
    suppress,
)
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxlab import backend
from mlxlab.checkpoint.names import FOLDER, ROUNDS, committed_paths
from mlxlab.config.instantiate import instantiate
from mlxlab.config.paths import project_root
from mlxlab.errors import CannotCreateError, DataError, InputNotFoundError, WriteError
from mlxlab.files.atomic import remove_leftovers
from mlxlab.past_runs.changes import CommandLine, current_command
from mlxlab.record.run_file import EARLIER, FILE, read_run, write_run
from mlxlab.record.run_record import STATUSES
from mlxlab.run.signals import SignalHandler
from mlxlab.run.storage import NoCloud, Storage
from mlxlab.run.writer import RunWriter
from mlxlab.terminal import messages
from mlxlab.terminal.messages import activity, set_aside_log, survives_closed_pipes
from mlxlab.terminal.program import display_path, run_dir_override
from mlxlab.terminal.wording import one_line
from mlxlab.tracking.tracker import NoTracker, Tracker
from mlxlab.training.distributed.launch_env import rank

if TYPE_CHECKING:
    from mlxlab.training.callback import Callback
    from mlxlab.training.distributed.process_group import ProcessGroup

logger = logging.getLogger(__name__)
LOCK = ".lock"
MAX_NAME = 120  # characters of the name in a store
NOT_IN_NAMES = ("hydra", "tracking", "tags", "callbacks", "cloud", "+", "~")
# The machine is at fault, not our code.
DISK_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EXDEV),
    *(errno.EMFILE, errno.ENFILE, errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR, errno.ENOTDIR),
)
LOG = "train.log"
# All that a run leaves but its journal, which may still be uploaded; a run folder may hold files of others.
_MOVED = (
    FOLDER,
    "base",
    "inference",
    "example_losses",
    ROUNDS,
    "report.html",
    "summary.md",
    "metrics.csv",
    "mistakes.csv",
    "profile.json",
    "profile.png",
    "out_of_fold.safetensors",
    "verify.json",
    "reproduction.json",
    "run.lock",
    "resume_changes.json",
    "transfer.json",
    "ensemble.json",
)


@dataclass(frozen=True)
class RunContext:
    """What one process of a run works with."""

    run_dir: Path  # the folder that this process writes: on rank 0 the run folder, elsewhere one that is discarded
    shared_dir: Path  # the run folder, on every rank
    writer: RunWriter
    signals: SignalHandler
    group: "ProcessGroup"
    # A round of a distillation uses the kernels of the first one; otherwise None.
    kernels: str | None = None
    # A round has the command of the whole run, a reproduction that of its lock.
    command: CommandLine = field(default_factory=current_command)
    callbacks: "Sequence[Callback]" = ()  # A program adds them to those of the config.

    def build_tracker(self, node: dict[str, Any]) -> Tracker:
        if self.group.rank > 0:
            return NoTracker()
        return instantiate(node, folder=self.run_dir, project=project_root())

    def build_cloud(self, node: dict[str, Any]) -> Storage:
        """Where rank 0 copies checkpoints to; raises as `Storage.check`."""
        if self.group.rank > 0:
            return NoCloud()
        cloud: Storage = instantiate(node)
        cloud.check()
        return cloud


@contextmanager
def open_run(run_dir: Path, cfg: dict[str, Any], *, owns_process: bool) -> Iterator[RunContext]:
    """The context of a run, in which MLX may be imported: its threads inherit the signal mask. Only rank 0 prints.

    Args:
        owns_process: the process ends after this run: a signal that arrives after its last step changes neither the
            exit code nor what is still printed, if the report takes a few seconds.

    Raises:
        CannotCreateError, WriteError: the folder is in use, or the disk cannot be written.
    """
    parallel = cfg["trainer"]["parallel"]
    signals = instantiate(cfg["signals"], SignalHandler)
    signals.may_finish_report = owns_process
    if owns_process:
        signals.run_dir = run_dir
    with run_lock(run_dir), survives_closed_pipes(), signals.as_run_interrupted():
        # Other ranks may wait for this process, and a sweep would have to start its job again.
        signals.ends_preparation = owns_process and parallel == "none"
        signals.start()
        try:
            for folder in (run_dir, run_dir / "inference", run_dir / "plots"):
                remove_leftovers(folder)
            with RunWriter(run_dir) as writer, signals.as_run_interrupted():
                backend.prepare()
                from mlxlab.training.distributed.process_group import init_process_group

                group = init_process_group(parallel, cfg["trainer"]["worker_timeout"])
                shared_dir = Path(group.broadcast_text(str(run_dir)))
                with ExitStack() as stack:
                    if group.rank > 0:
                        devnull = stack.enter_context(open(os.devnull, "w"))
                        stack.enter_context(redirect_stdout(devnull))
                        stack.enter_context(redirect_stderr(devnull))
                    context = RunContext(run_dir, shared_dir, writer, signals, group)
                    if not writer.record.has_begun:
                        overrides = context.command.overrides
                        typed = [text for text in overrides if text != "resume=auto"]
                        writer.record.command.first = [*typed, run_dir_override(run_dir)]
                    yield context
        except OSError as error:
            if error.errno not in DISK_ERRORS:
                raise
            raise WriteError(f"{error.filename or run_dir}: {error.strerror or error}") from None
        finally:
            signals.stop(ignore=owns_process)


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Locks a run folder for this process; raises CannotCreateError naming the process that holds it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise CannotCreateError(f"{folder}: cannot be written ({error.strerror})") from None
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = ""
            with suppress(OSError):
                owner = os.pread(file, 200, 0).decode(errors="replace").strip()
            raise CannotCreateError(f"{folder}: in use by {owner or 'another process'}") from None
        except OSError as error:
            raise CannotCreateError(
                f"{folder / LOCK}: cannot be locked ({error.strerror})"
            ) from None
        # The owner's name is only for messages: the lock holds without it.
        with suppress(OSError):
            os.ftruncate(file, 0)
            owner = f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"
            os.pwrite(file, f"{owner}\n".encode(), 0)
        yield
    finally:
        os.close(file)


def remove_unused(folder: Path) -> None:
    """Removes a run folder whose only run was refused before training; one that holds anything else stays."""
    names = {".hydra", ".lock", FILE, LOG, "inference", *(f"STATUS.{each}" for each in STATUSES)}
    with suppress(OSError, InputNotFoundError, DataError):
        begun = read_run(folder).has_begun
        if not begun and {path.name for path in folder.iterdir()} <= names:
            shutil.rmtree(folder)


def announce(cfg: Mapping[str, Any], run_dir: Path) -> AbstractContextManager[object]:
    """Says what runs and where: at once on a terminal, elsewhere if it takes long until what is inside has ended.

    Call it before anything heavy is imported, and enter it once signals are blocked: it starts a thread.
    """
    from mlxlab.config.hydra.job import group_choices, is_sweep_job

    name = _resumed_name(cfg, run_dir) or run_name(cfg, group_choices(), run_dir)
    title = f"{name} in {display_path(run_dir)}: loading MLX, data and model"
    if rank() > 0 or is_sweep_job():
        return activity(title, since=time.monotonic())
    return messages.announce(title)


def _resumed_name(cfg: Mapping[str, Any], run_dir: Path) -> str:
    """The name of the run that continues in a folder, whose command may name no more than that; "" for a new one."""
    if cfg.get("resume") is None or cfg["name"]:
        return ""
    with suppress(InputNotFoundError, DataError):
        record = read_run(run_dir)
        if record.has_begun:
            return one_line(record.name)
    return ""


def tracked_name(name: str, overrides: Iterable[str]) -> str:
    """A name with what was overridden, by which runs of one preset differ: `bert-nano-titanic-simple epochs=2 seed=3`."""
    words = [name]
    for override in overrides:
        key, _, value = override.partition("=")
        is_leaf = "." in key or key == "seed"
        if is_leaf and "/" not in value and not key.startswith(NOT_IN_NAMES):
            words.append(f"{key.rpartition('.')[2]}={value}")
    return " ".join(words)[:MAX_NAME]


def run_name(cfg: Mapping[str, Any], choices: Mapping[str, str], run_dir: Path) -> str:
    """The name in the config, or the options that the run began with; loaded weights have a size of their own."""
    groups = ["model", "model/size", "data", "trainer"]
    if cfg["model"].get("pretrained") or cfg["model"].get("init_from"):
        groups.remove("model/size")
    options = [choices[group] for group in groups if choices.get(group, "none") != "none"]
    return cfg["name"] or "-".join(options) or run_dir.name


def set_aside_earlier_run(writer: RunWriter) -> list[str]:
    """Moves what the earlier run of the folder left into a folder inside; returns a message, [] if it left nothing.

    Call it when the new run has been accepted, and before it writes anything.
    """
    folder = writer.folder
    earlier = writer.earlier
    if earlier is None or not (earlier.status != "killed" or committed_paths(folder / FOLDER)):
        return []
    short_id = earlier.id[:8]
    if not (short_id.isascii() and short_id.isalnum()):
        short_id = "run"  # The id of a stranger's run may not name a folder.
    name = f"{EARLIER}{short_id}"
    target = folder / name
    for number in count(2):
        if not target.exists():
            break
        target = folder / f"{name}-{number}"
    target.mkdir()
    write_run(target, earlier)  # It is a run folder from the start.
    writer.forget_earlier()
    for name in _MOVED:
        if (folder / name).exists():
            (folder / name).rename(target / name)
    set_aside_log(folder / LOG, target / LOG)
    return [f"the earlier run of this folder, {short_id}, is now in {display_path(target)}"]

"""Runs one experiment in its folder: locks it, listens to signals, keeps its manifest. MLX is imported last."""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mlxlab import backend
from mlxlab.config.instantiate import instantiate
from mlxlab.distillation.options import read_options
from mlxlab.errors import CannotCreateError, WriteError
from mlxlab.experiment.manifest import RunManifest
from mlxlab.experiment.signals import SignalHandler
from mlxlab.files.atomic import remove_leftovers

LOCK = ".lock"
DISK_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EXDEV),
    *(errno.EMFILE, errno.ENFILE, errno.ENAMETOOLONG, errno.ELOOP),
)  # of the machine, not of our code


def run_experiment(cfg: DictConfig, run_dir: Path, *, is_last: bool = False) -> float:
    """Runs one experiment in its folder and returns the best value of `cfg.objective`.

    Args:
        is_last: the process ends after this run: a signal that arrives after its end changes neither the exit code nor
            what is still printed.

    Raises:
        UserError: anything the user can correct, with its exit code; RunInterrupted when a signal ended the run.
    """
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    signals = instantiate(config["signals"], SignalHandler)
    with run_lock(run_dir):
        signals.start()
        try:
            for folder in (run_dir, run_dir / "inference", run_dir / "plots"):
                remove_leftovers(folder)
            with RunManifest(run_dir) as manifest:
                return _train(config, run_dir, manifest, signals)
        except OSError as error:
            if error.errno not in DISK_ERRORS:
                raise
            raise WriteError(f"{error.filename or run_dir}: {error.strerror or error}") from None
        finally:
            signals.stop(ignore=is_last)


def _train(config: dict[str, Any], run_dir: Path, manifest: RunManifest, signals: SignalHandler) -> float:
    """Imports MLX, whose threads inherit the signal mask."""
    backend.prepare()
    from mlxlab.experiment.start import distributed_context

    with distributed_context(config, run_dir, manifest, signals) as context:
        if read_options(config).is_multi_round:
            from mlxlab.experiment.rounds import DistillationRounds

            return DistillationRounds(config, context).run()
        from mlxlab.experiment.train import train

        return train(config, context)


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
            raise CannotCreateError(f"{folder / LOCK}: cannot be locked ({error.strerror})") from None
        with suppress(OSError):  # only for messages: the lock holds without the name of its owner
            os.ftruncate(file, 0)
            os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(file)

"""What a job may leave behind in its process: restored before the next job, or the process is not used again."""

import gc
import logging
import os
import random
import signal
import sys
import threading
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil

from mlxlab import backend

MAX_GROWTH = 300_000_000  # bytes, as in the workers of joblib
_SYS = ("stdin", "stdout", "stderr", "excepthook", "displayhook")
_LoggerState = tuple[int, bool, bool, list[logging.Handler]]


@dataclass(frozen=True)
class ProcessState:
    """The state of a process before its first job."""

    handlers: dict[int, Any]  # of signals
    mask: set[signal.Signals]
    loggers: dict[str, _LoggerState]
    disabled_logging: int
    warning_filters: list[Any]
    numpy_random: Any
    numpy_errors: Any
    sys_lists: tuple[list[str], list[str]]
    sys_attributes: dict[str, Any]
    umask: int
    threads: frozenset[int | None]
    resident_bytes: int

    @classmethod
    def capture(cls) -> "ProcessState":
        """Of this process. Objects so far are not collected again: they are those of imported modules."""
        gc.collect()
        gc.freeze()
        return cls(
            {number: signal.getsignal(number) for number in signal.valid_signals()},
            signal.pthread_sigmask(signal.SIG_BLOCK, ()),  # type: ignore[arg-type]  # signals of Python's own
            {name: _logger_state(logger) for name, logger in _loggers().items()},
            logging.root.manager.disable,
            list(warnings.filters),
            np.random.get_state(),
            np.geterr(),
            (list(sys.path), list(sys.argv)),
            {name: getattr(sys, name) for name in _SYS},
            _umask(),
            frozenset(thread.ident for thread in threading.enumerate()),
            _resident_bytes(),
        )

    def restore(self) -> bool:
        """Whether this process is as it was: without new threads and child processes, and not much larger."""
        if not self._is_alone():
            return False
        self._restore_logging()
        for number, handler in self.handlers.items():
            if handler is not None and signal.getsignal(number) != handler:
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
        for name, value in self.sys_attributes.items():
            setattr(sys, name, value)
        sys.path[:], sys.argv[:] = self.sys_lists
        warnings.filters[:] = self.warning_filters  # type: ignore[index]
        warnings._filters_mutated()  # type: ignore[attr-defined]
        random.seed()
        np.random.set_state(self.numpy_random)
        np.seterr(**self.numpy_errors)
        os.umask(self.umask)
        gc.collect()
        gc.freeze()
        backend.release_memory()
        return _resident_bytes() - self.resident_bytes < MAX_GROWTH

    def _is_alone(self) -> bool:
        """Whether no thread that could keep the process alive, and no process of its group, is left."""
        if any(
            not each.daemon and each.ident not in self.threads for each in threading.enumerate()
        ):
            return False
        return not any(_group(pid) == os.getpgrp() for pid in psutil.pids() if pid != os.getpid())

    def _restore_logging(self) -> None:
        logging.disable(self.disabled_logging)
        for name, logger in _loggers().items():
            level, propagate, disabled, handlers = self.loggers.get(name) or _new_logger_state(
                logger
            )
            for handler in set(logger.handlers).difference(handlers):
                handler.close()
            logger.setLevel(level)
            logger.propagate, logger.disabled, logger.handlers = propagate, disabled, list(handlers)


def _loggers() -> dict[str, logging.Logger]:
    named = logging.root.manager.loggerDict
    return {"": logging.root} | {
        name: each for name, each in named.items() if isinstance(each, logging.Logger)
    }


def _logger_state(logger: logging.Logger) -> _LoggerState:
    return logger.level, logger.propagate, logger.disabled, list(logger.handlers)


def _new_logger_state(logger: logging.Logger) -> _LoggerState:
    """Of a module that was imported later, and configures its logger then only."""
    silent: list[logging.Handler] = [
        each for each in logger.handlers if isinstance(each, logging.NullHandler)
    ]
    return logger.level, logger.propagate, False, silent


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except OSError:
        return 0


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)

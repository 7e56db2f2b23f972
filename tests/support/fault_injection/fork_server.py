"""Forks runs of `train`, with faults, from a process that has imported everything: itself a fork of that of `forks`.

Orders are dicts: argv, environment, out, err (files), phase (a file of one byte), plan (see `faults`).
Answers: the process id at once, then its wait status when it has ended. It is reaped only with the next order, so
that nobody sends a signal to a stranger of the same number. Nothing of MLX has run here: it has no threads to lose.
"""

import atexit
import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mlxlab.cli.train import main as train
from support.fault_injection import faults


def serve(connection: Connection, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    assert len(os.listdir("/proc/self/task")) == 1
    child = 0
    while order := receive(connection):
        if child:
            os.waitpid(child, 0)
        child = os.fork()
        if child == 0:
            connection.close()
            sys.exit(live(order))
        connection.send(child)
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        killed = ended.si_code in (os.CLD_KILLED, os.CLD_DUMPED)
        connection.send(-ended.si_status if killed else ended.si_status)


def receive(connection: Connection) -> Any:
    """The next order; None after the last one."""
    try:
        return connection.recv()
    except EOFError:
        return None


def live(order: dict[str, Any]) -> int:
    """The child: a `train` of its own, with the faults that were ordered."""
    for descriptor, path in ((0, os.devnull), (1, order["out"]), (2, order["err"])):
        file = os.open(
            path, os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644
        )
        os.dup2(file, descriptor)
        os.close(file)
    os.environ.update(order["environment"])
    sys.argv = ["train.py", *order["argv"]]
    faults.install(order["plan"], Path(order["phase"]))
    try:
        return train()
    finally:
        atexit._run_exitfuncs()

"""Runs a program in a pseudo-terminal of a given width."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from support.processes import environment

_SECONDS = 120  # without any output
_REACTION = 0.2  # seconds of a person: a signal between a prompt and the wait for a key is lost until the next key
_TAKE_TERMINAL = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell starts what it runs in the background with SIGINT ignored
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Screen(NamedTuple):
    code: int
    text: str  # with escape sequences; line ends are those of files

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


class Keyboard(NamedTuple):
    """A text that is typed once another one was shown, after the last that was waited for."""

    after: str
    text: str


def run_in_terminal(
    args: Sequence[str],
    columns: int,
    variables: Mapping[str, str] | None = None,
    typed: str = "",
    keyboard: Sequence[Keyboard] = (),
) -> Screen:
    """Runs `python ARGS` with a terminal as standard input, output and error, in which a text was typed ahead.

    With a `keyboard` it is the controlling terminal of a session, so that Ctrl-C (`\\x03`) is a signal.
    """
    controller, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    path = os.pathsep.join(filter(None, sys.path))
    env = environment(TERM="xterm-256color", PYTHONPATH=path)
    for name in ("COLUMNS", "NO_COLOR"):
        env.pop(name, None)
    env |= variables or {}
    take = ["-c", _TAKE_TERMINAL] if keyboard else []
    command, session = [sys.executable, *take, *args], {"start_new_session": bool(keyboard)}
    process = subprocess.Popen(command, stdin=side, stdout=side, stderr=side, env=env, **session)
    os.close(side)
    os.write(controller, typed.encode())
    output, expected, position = b"", list(keyboard), 0
    with suppress(OSError):  # EIO: the other side is closed
        while chunk := _read(controller, process):
            output += chunk
            shown = output.replace(b"\r\n", b"\n")
            if expected and (found := shown.find(expected[0].after.encode(), position)) >= 0:
                position = found + len(expected[0].after.encode())
                time.sleep(_REACTION)
                os.write(controller, expected.pop(0).text.encode())
    os.close(controller)
    return Screen(process.wait(), output.decode().replace("\r\n", "\n"))


def _read(controller: int, process: subprocess.Popen[bytes]) -> bytes:
    """The next output; a process that is silent for too long is killed."""
    if not select.select([controller], [], [], _SECONDS)[0]:
        process.kill()
    return os.read(controller, 65536)

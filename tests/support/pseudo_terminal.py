"""Runs a program in a pseudo-terminal of a given width."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from support.processes import environment


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
    env = {key: value for key, value in environment().items() if key not in ("COLUMNS", "NO_COLOR", "TERM")}
    env |= {"TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **(variables or {})}
    process = subprocess.Popen([sys.executable, *args], stdin=side, stdout=side, stderr=side, env=env, **_session(keyboard))
    os.close(side)
    os.write(controller, typed.encode())
    output, expected, position = b"", list(keyboard), 0
    with suppress(OSError):  # EIO: the other side is closed
        while chunk := os.read(controller, 65536):
            output += chunk
            shown = output.replace(b"\r\n", b"\n")
            if expected and (found := shown.find(expected[0].after.encode(), position)) >= 0:
                position = found + len(expected[0].after.encode())
                os.write(controller, expected.pop(0).text.encode())
    os.close(controller)
    return Screen(process.wait(), output.decode().replace("\r\n", "\n"))


def _session(keyboard: Sequence[Keyboard]) -> dict[str, Any]:
    """Makes standard input the controlling terminal."""
    return {"start_new_session": True, "preexec_fn": _take_terminal} if keyboard else {}


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)

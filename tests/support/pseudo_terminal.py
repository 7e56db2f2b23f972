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
from typing import NamedTuple

from support.processes import environment


class Screen(NamedTuple):
    code: int
    text: str  # with escape sequences; line ends are those of files

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


def run_in_terminal(
    args: Sequence[str], columns: int, variables: Mapping[str, str] | None = None, typed: str = ""
) -> Screen:
    """Runs `python ARGS` with a terminal as standard input, output and error, in which a text was typed ahead."""
    controller, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    env = {key: value for key, value in environment().items() if key not in ("COLUMNS", "NO_COLOR", "TERM")}
    env |= {"TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **(variables or {})}
    process = subprocess.Popen([sys.executable, *args], stdin=side, stdout=side, stderr=side, env=env)
    os.close(side)
    os.write(controller, typed.encode())
    output = b""
    with suppress(OSError):  # EIO: the other side is closed
        while chunk := os.read(controller, 65536):
            output += chunk
    os.close(controller)
    return Screen(process.wait(), output.decode().replace("\r\n", "\n"))

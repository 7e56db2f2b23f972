"""The terminal that a stream writes to: its width, and whether it shows colours."""

import os
import shutil
import sys
from typing import Literal, TextIO

Style = Literal["bold", "red", "green", "yellow"]
_CODES: dict[Style, int] = {"bold": 1, "red": 31, "green": 32, "yellow": 33}


def columns(stream: TextIO | None = None) -> int | None:
    """The width of the terminal, by default of standard output; None if the stream is a file or a pipe.

    `COLUMNS`, where it is a number, replaces what the terminal says.
    """
    if not is_terminal(stream or sys.stdout):
        return None
    return shutil.get_terminal_size().columns


def is_terminal(stream: TextIO | None) -> bool:
    """False for None, as a program without standard streams has, and for a closed stream."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def styled(text: str, style: Style, stream: TextIO | None = None) -> str:
    """The text in a colour, or bold, on a terminal with colours where `NO_COLOR` (no-color.org) is not set."""
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if not text or is_plain or not is_terminal(stream or sys.stdout):
        return text
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m"


def show(text: str) -> None:
    """Prints results on standard output."""
    print(text, flush=True)

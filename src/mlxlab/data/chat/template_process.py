"""The process that renders a chat template, started when it is first needed."""

import json
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from mlxlab.data.chat import sandbox
from mlxlab.errors import DataError

MAX_TEMPLATE = 2**18  # bytes
MAX_SECONDS = 5.0  # of processor time for a conversation
MAX_MESSAGE = 200  # characters of an error of the template


class TemplateError(DataError):
    """A template that cannot be compiled, fails, or takes more time or memory than it may."""


class TemplateProcess:
    """Renders conversations; may be used by several threads.

    Args:
        name: of the template, for messages.
    """

    def __init__(self, source: str, name: str, special_tokens: Mapping[str, str]) -> None:
        if len(source.encode()) > MAX_TEMPLATE:
            raise TemplateError(f"{name}: a template larger than {MAX_TEMPLATE} bytes")
        self.name = name
        self._program = (source, special_tokens)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def render(self, requests: Sequence[Mapping[str, object]]) -> list[dict[str, Any]]:
        """The reply of the sandbox to each request; `error` in it where the template fails.

        Raises TemplateError.
        """
        with self._lock:
            if self._process is None:
                self._process = self._start()
            replies = self._ask(self._process, requests, len(requests))
        for reply in replies:
            if "error" in reply:
                reply["error"] = f"{self.name}: the template failed: {_one_line(reply['error'])}"
        return replies

    def _start(self) -> "subprocess.Popen[bytes]":
        """The sandbox with the modules of this process, and with no other environment."""
        process = subprocess.Popen(
            [sys.executable, "-S", "-P", sandbox.__file__, str(MAX_SECONDS)],
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        weakref.finalize(self, _end, process)
        (reply,) = self._ask(process, self._program, 1)
        if "error" in reply:
            where = f"{self.name}:{reply['line']}" if reply["line"] else self.name
            cause = _one_line(reply["error"])
            raise TemplateError(f"{where}: the chat template cannot be compiled: {cause}")
        return process

    def _ask(
        self, process: "subprocess.Popen[bytes]", message: object, num_replies: int
    ) -> list[dict[str, Any]]:
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):  # The end of the process is noticed on reading.
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
        lines = [process.stdout.readline() for _ in range(num_replies)]
        if all(line.endswith(b"\n") for line in lines):
            return [json.loads(line) for line in lines]
        self._process = None
        if process.wait() == -signal.SIGPROF:
            raise TemplateError(f"{self.name}: the template took more than {MAX_SECONDS:g} s")
        raise TemplateError(f"{self.name}: the template crashed or ran out of memory")


def _end(process: "subprocess.Popen[bytes]") -> None:
    with suppress(BrokenPipeError), process:
        process.kill()


def _one_line(text: str) -> str:
    printable = "".join(sign if sign.isprintable() else " " for sign in text)
    return " ".join(printable.split())[:MAX_MESSAGE]

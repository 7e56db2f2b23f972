"""A headless Chromium that shows a page, driven by the DevTools protocol over pipes."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
_FLAGS += ["--hide-scrollbars"]
_SECONDS = 60.0


@dataclass(frozen=True)
class Shown:
    """A page as it was shown: a screenshot of all of it, the addresses that it asked for, its width with overflow."""

    png: bytes
    requests: list[str]
    scroll_width: int


def show(page: Path, profile: Path, *, width: int, scheme: str) -> Shown:
    """Opens a page in a window of `width` pixels with the colour scheme light or dark."""
    tab = _Tab(profile)
    try:
        tab.call("Network.enable")
        feature = {"name": "prefers-color-scheme", "value": scheme}
        tab.call("Emulation.setEmulatedMedia", features=[feature])
        tab.load(page, width)
        width_of_page = {"expression": "document.documentElement.scrollWidth"}
        result = tab.call("Runtime.evaluate", **width_of_page)["result"]
        png = tab.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        requests = [
            event["request"]["url"] for event in tab.events.get("Network.requestWillBeSent", [])
        ]
        return Shown(base64.b64decode(png), requests, result["value"])
    finally:
        tab.close()


def evaluate(page: Path, profile: Path, script: str, *, width: int = 1280) -> object:
    """The value of a script, or of its promise, in a page that has been loaded."""
    tab = _Tab(profile)
    try:
        tab.load(page, width)
        params = {"expression": script, "awaitPromise": True, "returnByValue": True}
        return tab.call("Runtime.evaluate", **params)["result"].get("value")
    finally:
        tab.close()


class _Tab:
    """A browser of its own with one tab; `events` by name, as they arrived."""

    def __init__(self, profile: Path) -> None:
        assert BROWSER is not None
        self.events: dict[str, list[dict]] = {}
        self._number, self._session, self._buffer = 0, {}, b""
        ends = [
            fcntl.fcntl(end, fcntl.F_DUPFD, 10) for pipe in (os.pipe(), os.pipe()) for end in pipe
        ]
        commands_read, self._commands, self._answers, answers_write = ends
        line = f'exec "$@" 3<&{commands_read} 4>&{answers_write}'
        flags = [*_FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        self._process = subprocess.Popen(
            ["bash", "-c", line, "bash", BROWSER, *flags],
            pass_fds=(commands_read, answers_write),
            stderr=subprocess.DEVNULL,
        )
        os.close(commands_read)
        os.close(answers_write)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._session = {"sessionId": session}

    def call(self, method: str, **params: object) -> dict:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params, **self._session}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def load(self, page: Path, width: int) -> None:
        """Shows a page in a window of this width."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Page.enable")
        self.call("Page.navigate", url=page.as_uri())
        while "Page.loadEventFired" not in self.events:
            self._read()

    def _read(self) -> dict:
        deadline = time.monotonic() + _SECONDS
        while b"\0" not in self._buffer:
            ready, _, _ = select.select(
                [self._answers], [], [], max(deadline - time.monotonic(), 0.0)
            )
            assert ready, "the browser does not answer"
            data = os.read(self._answers, 2**20)
            assert data, "the browser has ended"
            self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(text)
        if "method" in message:
            self.events.setdefault(message["method"], []).append(message["params"])
        return message

    def close(self) -> None:
        os.close(self._commands)
        os.close(self._answers)
        self._process.kill()
        self._process.wait()

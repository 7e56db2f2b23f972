"""A proxy in front of an object store that loses, refuses, cuts and delays requests, as networks and services do."""

import http.client
import math
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from support.object_stores.loopback import LoopbackHandler, LoopbackServer

FAULTS = {
    "503": "the service answers that it is busy; nothing was done",
    "500": "the service answers with an internal error, but what was requested was done",
    "lost": "the connection is cut before all of the request has arrived",
    "unanswered": "the connection is cut after the request was served",
    "half": "the connection is cut in the middle of the answer",
    "slow": "the answer takes a tenth of a second more",
    "expired": "the credentials are too old; the answer repeats them",
}


class Request(NamedTuple):
    """One request: `fault` is "" for those that are passed on."""

    method: str
    path: str
    fault: str


class Pause:
    """A request that waits: `reached` when it came, set `over` to end it."""

    def __init__(self) -> None:
        self.reached, self.over = threading.Event(), threading.Event()


class FaultProxy(LoopbackServer):
    """Passes requests on to `upstream`, a URL.

    Attributes:
        choose: the fault of a request, by its method and path: a key of FAULTS, or "" for none.
        requests: those that came, in order.
        signatures: of the requests, in which nobody may read them while they are valid.
        bytes_per_second: bandwidth of all connections together.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream)
        self.choose: Callable[[str, str], str] = lambda method, path: ""
        self.requests: list[Request] = []
        self.signatures: set[str] = set()
        self.bytes_per_second = math.inf
        self._bandwidth = threading.Lock()
        super().__init__(Handler)

    @property
    def url(self) -> str:
        return super().url + self.upstream.path

    @property
    def counts(self) -> Counter[str]:
        """How many requests had each fault."""
        return Counter(request.fault or "none" for request in self.requests)

    def fail_share(self, share: float, faults: list[str], seed: int) -> None:
        """From now on a random share of the requests fails."""
        rng, lock = random.Random(seed), threading.Lock()

        def choose(_method: str, _path: str) -> str:
            with lock:
                return rng.choice(faults) if rng.random() < share else ""

        self.choose = choose

    def fail_all(self, fault: str) -> None:
        """Every request fails from now on."""
        self.choose = lambda method, path: fault

    def fail_after(self, pattern: str, fault: str, *, matched_too: bool = False) -> None:
        """Every request fails after the first one whose `METHOD path` matches, and that one if `matched_too`."""
        matched = threading.Event()

        def choose(method: str, path: str) -> str:
            was_matched = matched.is_set()
            if re.search(pattern, f"{method} {unquote(path)}"):
                matched.set()
            return fault if was_matched or (matched_too and matched.is_set()) else ""

        self.choose = choose

    def pause_at(self, number: int, pattern: str, after: str) -> "Pause":
        """Holds the n-th request, from 1, whose `METHOD path` matches; then it and all later ones are lost.

        Args:
            after: matches the first request, after which the others are counted.
        """
        pause, lock, seen = Pause(), threading.Lock(), Counter[str]()

        def choose(method: str, path: str) -> str:
            with lock:
                request = f"{method} {unquote(path)}"
                seen["pattern"] += seen["after"] > 0 and re.search(pattern, request) is not None
                seen["after"] += re.search(after, request) is not None
                due = seen["pattern"] >= number
            if due:
                pause.reached.set()
                pause.over.wait(60)
            return "lost" if due else ""

        self.choose = choose
        return pause

    def heal(self) -> None:
        self.choose = lambda method, path: ""

    def transfer(self, size: int) -> None:
        """Waits for as long as that many bytes take."""
        with self._bandwidth:
            time.sleep(size / self.bytes_per_second)


class Handler(LoopbackHandler):
    server: FaultProxy

    def answer(self) -> None:
        if signature := re.split(r"Signature=|[ :]", self.headers.get("Authorization", ""))[
            -1
        ]:  # or "Bearer "
            self.server.signatures.add(signature)
        fault = self.server.choose(self.command, self.path)
        self.server.requests.append(Request(self.command, self.path, fault))
        if fault == "lost":
            self.cut()
            return
        body = self.read_body()
        match fault:
            case "503":
                self.send(503, {}, b"<Error><Code>SlowDown</Code></Error>")
            case "expired":
                request = f"{self.path} {dict(self.headers)}".replace("<", "").replace("&", "&amp;")
                error = f"<Error><Code>ExpiredToken</Code><Message>{request}</Message></Error>"
                self.send(403, {"Content-Type": "application/xml"}, error.encode())
            case _:
                self.pass_on(body, fault)

    def pass_on(self, body: bytes, fault: str) -> None:
        status, headers, answer = self.forward(body)
        self.server.transfer(len(body) + len(answer))
        match fault:
            case "unanswered":
                self.cut()
            case "500":
                self.send(500, {}, b"<Error><Code>InternalError</Code></Error>")
            case "half":
                self.send(status, headers, answer, sent=len(answer) // 2)
                self.cut()
            case _:
                time.sleep(0.1 if fault == "slow" else 0)
                self.send(status, headers, answer)

    def forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.server.upstream.netloc, timeout=60)
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP
        }
        if body or self.command in ("PUT", "POST"):
            headers["Content-Length"] = str(len(body))
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        return response.status, dict(response.getheaders()), answer

    def send(
        self, status: int, headers: dict[str, str], body: bytes, sent: int | None = None
    ) -> None:
        """Sends an answer, or its first bytes only."""
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        if status != 204:
            length = next(
                (value for name, value in headers.items() if name.lower() == "content-length"), "0"
            )
            self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body[:sent])

    def cut(self) -> None:
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True


HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}

"""Says what a program does while it takes long: one line after some seconds, then one every half minute.

What is quick says nothing. Lines are messages of the logger, so that a terminal, a pipe and a log file get the same.
"""

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

FIRST_SECONDS = 3.0
LINE_SECONDS = 30.0

T = TypeVar("T")
logger = logging.getLogger(__name__)


@contextmanager
def activity(text: str, *, since: float | None = None) -> Iterator[None]:
    """Logs `text` if what is inside takes long, the time so far, and that it is done if there were several lines.

    By a thread, as C++ does not return to Python.

    Args:
        since: when it began, in the time of `time.monotonic`; None is now.
    """
    ended = threading.Event()
    start = time.monotonic() if since is None else since

    def report() -> None:
        wait = max(0.0, start + FIRST_SECONDS - time.monotonic())
        is_first = True
        while not ended.wait(wait):
            elapsed = time.monotonic() - start
            logger.info(f"{text} ..." if is_first else f"{text} ... {duration(elapsed)} so far")
            wait = LINE_SECONDS
            is_first = False

    thread = threading.Thread(target=report, name="activity", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if (elapsed := time.monotonic() - start) > LINE_SECONDS:
        logger.info(f"{text}: done after {duration(elapsed)}")


def track(
    items: Iterable[T], text: str, total: int | None = None, *, at_most: bool = False
) -> Iterator[T]:
    """Yields the items and logs how many are done; with a known `total`, or one that is `at_most`, also the time left."""
    start = time.monotonic()
    due = FIRST_SECONDS
    for done, item in enumerate(items):
        elapsed = time.monotonic() - start
        if done and elapsed >= due:
            due = elapsed + LINE_SECONDS
            line = f"{text}: {done}"
            if total and total > done:
                left = duration(elapsed * (total - done) / done)
                whole = f"at most {total}" if at_most else str(total)
                line += f" of {whole}, ETA {left}"
            logger.info(line)
        yield item


def duration(seconds: float) -> str:
    """h:mm:ss."""
    minutes, remainder = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{remainder:02d}"

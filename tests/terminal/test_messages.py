"""Messages: one that cannot be written never ends a run; what takes long says what it is, what is quick nothing."""

import logging
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from mlxlab.terminal import messages
from mlxlab.terminal.messages import activity, configure_logging, track


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_message_that_cannot_be_written_does_not_end_the_run(monkeypatch):
    full = Path("/dev/full").open("w")  # noqa: SIM115
    monkeypatch.setattr(sys, "stderr", full)
    configure_logging()
    logging.getLogger("mlxlab.test").warning("lost")
    monkeypatch.undo()
    with suppress(OSError):
        full.close()


def test_a_reader_that_ends_does_not_end_a_run(tmp_path):
    code = """
import sys
from mlxlab.terminal.messages import survives_closed_pipes
with survives_closed_pipes():
    for stream in (sys.stdout, sys.stderr):
        for number in range(3):
            print("x" * 100_000, file=stream, flush=True)
with open(sys.argv[1], "w") as file:
    file.write("done")
"""
    command = [sys.executable, "-c", code, str(tmp_path / "file")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(60) == 0
    assert (tmp_path / "file").read_text() == "done"


@pytest.fixture
def lines(caplog, monkeypatch):
    monkeypatch.setattr(messages, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(messages, "LINE_SECONDS", 0.1)
    caplog.set_level("INFO")
    return lambda: caplog.messages


def test_a_long_activity_is_named_and_named_again_with_the_time_so_far(lines):
    with activity("reading the data"):
        time.sleep(0.3)
    assert lines()[:2] == ["reading the data ...", "reading the data ... 0:00:00 so far"]
    assert lines()[-1] == "reading the data: done after 0:00:00"


def test_items_are_counted_and_the_rest_is_estimated(lines, monkeypatch):
    seconds = iter([0.0, *(10.0 * n for n in range(6))])
    monkeypatch.setattr(messages.time, "monotonic", lambda: next(seconds))
    monkeypatch.setattr(messages, "LINE_SECONDS", 25.0)
    assert list(track("abcdef", "evaluation: batches", 6)) == [*"abcdef"]
    assert lines() == [
        "evaluation: batches: 1 of 6, ETA 0:00:50",
        "evaluation: batches: 4 of 6, ETA 0:00:20",
    ]

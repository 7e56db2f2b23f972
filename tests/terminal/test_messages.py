"""The messages of commands: one that cannot be written never ends a run."""

import logging
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from mlxlab.terminal.messages import configure_logging


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

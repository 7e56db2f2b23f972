"""The messages of commands: one that cannot be written never ends a run."""

import logging
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

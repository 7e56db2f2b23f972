"""The end of a command."""

import gc
import sys

import pytest

from mlxlab.cli.app import run_subcommand


@pytest.mark.parametrize("owns_process", [True, False])
def test_a_process_that_ends_does_not_search_its_garbage(owns_process, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["command", "x"])
    before = gc.get_freeze_count()
    assert run_subcommand(None if owns_process else ["x"], act=len, show_help=str) == 1
    frozen = gc.get_freeze_count() > before
    gc.unfreeze()
    assert frozen == owns_process

"""Fixtures of all tests of tracking: a project with a store of its own."""

import pytest

from mlxlab.tracking import queue
from support.tracking import project_fixture  # noqa: F401


@pytest.fixture
def no_syncer(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process uploads in the background."""
    monkeypatch.setattr(queue, "start_uploading", lambda queue: False)

"""The server of runs under fault injection, and a text for them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.fault_injection.harness import ForkServer, fork_server


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with fork_server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts for a language model."""
    path = tmp_path_factory.mktemp("corpus") / "text.jsonl"
    texts = (f"Line {n} tells of {n * n} sheep and {n % 7} dogs. " * 4 for n in range(60))
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path

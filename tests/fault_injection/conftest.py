"""Figures of the fault injection, shown at its end."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.fault_injection.harness import ForkServer, fork_server


@pytest.fixture
def summarize(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """A line of counts for the summary; it is shown also when the test fails later."""
    return lambda line: record_property("fault_injection", line)


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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    stats = terminalreporter.stats
    properties = [
        each
        for report in [*stats.get("passed", []), *stats.get("failed", [])]
        for each in report.user_properties
    ]
    lines = [str(value) for name, value in properties if name == "fault_injection"]
    if lines:
        terminalreporter.section("fault_injection")
        for line in dict.fromkeys(lines):
            terminalreporter.write_line(line)

"""Figures of the fault injection, shown at its end."""

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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder that is not there yet."""
    return tmp_path / "run"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [
        report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])
    ]
    lines = [
        str(value)
        for report in reports
        for name, value in report.user_properties
        if name == "fault_injection"
    ]
    if lines:
        terminalreporter.section("fault_injection")
        for line in dict.fromkeys(lines):
            terminalreporter.write_line(line)

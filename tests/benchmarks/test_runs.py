"""The benchmark of `runs` fills a store that its commands can read."""

import pytest
from benchmarks.__main__ import main
from benchmarks.runs import runs

from support.commands import command

runs_main = command("runs")

# Of MLflow, at its import in this process.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.mark.slow
def test_every_command_reads_the_store_of_the_benchmark(monkeypatch, capsys):
    codes = []

    def run_here(args):
        codes.append(runs_main(args))
        return 0.0, 0.0

    monkeypatch.setattr(runs, "_time", run_here)
    assert main(["suite=runs", "runs=30", "rows=300", "rounds=1"]) == 0
    assert codes == 2 * [*[0] * (len(runs.COMMANDS) - 1), 2]
    assert "| a misspelt name   |" in capsys.readouterr().out

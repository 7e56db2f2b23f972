"""`suite=sweep_winner` on few simulated sweeps."""

import pytest
from benchmarks.alternate import figures
from benchmarks.report import UnexpectedResults
from benchmarks.sweeps.sweep_winner import NOISE, sweep_winner

from mlxlab.stats import ranking


def test_every_noise_has_a_row_and_a_better_configuration_is_on_top():
    equal, two = figures(sweep_winner(sweeps=3, configurations=4, effect=20.0, seeds=5))
    assert [row[0] for row in equal["rows"]] == list(NOISE)
    assert [row[-1] for row in equal["rows"]] == ["100.0 %"] * len(NOISE)
    assert len(two["rows"]) == 1


def test_a_test_that_names_too_many_winners_fails(monkeypatch):
    monkeypatch.setattr(ranking, "LEVEL", 0.0)
    with pytest.raises(UnexpectedResults, match="expected at most 5 %"):
        sweep_winner(sweeps=3, configurations=4, seeds=3)

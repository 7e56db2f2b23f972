"""`suite=trial` on few simulated trials."""

from benchmarks.alternate import figures
from benchmarks.sweeps.trial_simulation import NOISE, simulate


def test_every_noise_and_every_test_has_a_row():
    noise, tests = figures(simulate(3, 5, (2.0,)))
    assert [row[0] for row in noise["rows"]] == list(NOISE)
    assert [row[0] for row in tests["rows"]][:2] == ["this test", "keep if better, one pair"]
    assert all(len(row) == len(noise["columns"]) == 5 for row in noise["rows"])

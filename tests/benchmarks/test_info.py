"""The table of estimated and measured peaks."""

import pytest
from benchmarks.__main__ import main
from benchmarks.memory import info
from benchmarks.memory.info_subject import STEPS


def test_estimates_stand_beside_measured_peaks_with_their_ratio(monkeypatch, capsys):
    monkeypatch.setattr(
        info, "run_module", lambda *_: {name: [9_000_000, 10_000_000] for name in STEPS}
    )
    assert main(["suite=info", "model=bert", "size=nano"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("9 / 10 (0.90)") == 2 * len(STEPS)
    assert "ratios from 0.90 to 0.90" in printed


@pytest.mark.parametrize("arg", ["size=nan", "model=brt"])
def test_an_unknown_size_or_family_is_refused(arg, capsys):
    assert main(["suite=info", arg]) == 2
    assert "did you mean" in capsys.readouterr().err

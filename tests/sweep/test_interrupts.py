"""What each further signal asks of the jobs of a sweep that run."""

import time
from signal import SIGHUP, SIGINT, SIGTERM

import pytest

from mlxlab.sweep.interrupts import Interrupts

WAITING, STOPPING = "Ctrl-C again stops them", "Ctrl-C again kills them"
KILLING = "killing those that run"


@pytest.mark.parametrize(
    ("signals", "lines"),
    [
        ([SIGINT] * 4, [WAITING, STOPPING, KILLING]),
        ([SIGTERM, SIGINT], [STOPPING, KILLING]),
        ([SIGTERM, SIGTERM, SIGTERM], [STOPPING, KILLING]),
        ([SIGINT, SIGTERM, SIGINT], [WAITING, STOPPING, KILLING]),
        ([SIGHUP, SIGTERM], [STOPPING, KILLING]),
        ([SIGTERM, SIGHUP, SIGHUP], [STOPPING]),
    ],
)
def test_a_signal_does_what_the_line_of_the_one_before_said(monkeypatch, capsys, signals, lines):
    interrupts = Interrupts()
    for second, number in enumerate(signals):
        monkeypatch.setattr(time, "monotonic", lambda second=second: 10.0 * second)
        interrupts.receive(number)
    printed = capsys.readouterr().err.split("\n\n")
    assert [text.strip().rpartition("; ")[2] for text in printed] == lines
    assert (interrupts.stop_signal, interrupts.stops_jobs) == (signals[0], True)
    assert interrupts.kills_jobs == (lines[-1] == KILLING)


def test_a_signal_that_a_process_and_its_group_get_counts_once(capsys):
    interrupts = Interrupts()
    interrupts.receive(SIGTERM)
    interrupts.receive(SIGTERM)
    assert not interrupts.kills_jobs
    assert capsys.readouterr().err.count("no further jobs") == 1

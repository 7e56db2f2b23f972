"""What is quick says nothing; what takes long says what it is, and when it will end."""

import time

import pytest

from mlxlab.terminal import messages as progress
from mlxlab.terminal.messages import activity, duration, track


@pytest.fixture
def lines(caplog, monkeypatch):
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.1)
    caplog.set_level("INFO")
    return lambda: [
        record.getMessage() for record in caplog.records if record.name == progress.__name__
    ]


def test_a_long_activity_is_named_and_named_again_with_the_time_so_far(lines):
    with activity("reading the data"):
        time.sleep(0.3)
    assert lines()[:2] == ["reading the data ...", "reading the data ... 0:00:00 so far"]
    assert lines()[-1] == "reading the data: done after 0:00:00"


def test_an_activity_that_began_earlier_is_named_at_once(lines):
    with activity("loading", since=time.monotonic() - 1):
        time.sleep(0.04)  # less than the first time
    assert lines()[0] == "loading ..."


def test_a_short_activity_says_nothing_and_ends_its_thread(lines):
    with activity("reading the data"):
        pass
    time.sleep(0.1)
    assert lines() == []


def test_items_are_counted_and_the_rest_is_estimated(lines, monkeypatch):
    seconds = iter([0.0, *(10.0 * n for n in range(6))])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    monkeypatch.setattr(progress, "LINE_SECONDS", 25.0)
    assert list(track("abcdef", "evaluation: batches", 6)) == [*"abcdef"]
    assert lines() == [
        "evaluation: batches: 1 of 6, ETA 0:00:50",
        "evaluation: batches: 4 of 6, ETA 0:00:20",
    ]


def test_items_of_unknown_number_are_counted(lines):
    for _ in track(range(3), "evaluation: batches"):
        time.sleep(0.06)
    assert lines()[0] == "evaluation: batches: 1"


def test_durations_are_hours_minutes_seconds():
    assert [duration(seconds) for seconds in (0.4, 61, 3600 * 30 + 5)] == [
        "0:00:00",
        "0:01:01",
        "30:00:05",
    ]

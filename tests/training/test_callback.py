"""The trace of the training loop: time spent waiting for data."""

from mlxlab.training.callback import Trace


def test_only_the_time_until_a_batch_is_ready_counts_as_waiting():
    seconds = iter([0.0, 5.0, 100.0, 101.0, 200.0])
    trace = Trace(clock=lambda: next(seconds))
    for _ in trace.waiting(["first", "second"]):
        pass
    assert trace.wait_seconds == 5.0 + 1.0

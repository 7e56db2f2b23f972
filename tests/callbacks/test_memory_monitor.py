"""MemoryMonitor: logged values."""

from mlxlab.callbacks.memory_monitor import MemoryMonitor
from support.models import Recorder, fit, make_run, make_trainer


def test_every_value_is_logged_every_n_steps():
    run = fit(make_trainer(epochs=5), make_run(tracker=Recorder()), [MemoryMonitor(2)], seed=1)
    due = list(range(2, run.state.progress.step + 1, 2))
    for name in ("active", "peak", "cache", "rss"):
        logged = [step for step, metrics in run.state.history.curve if f"memory/{name}" in metrics]
        assert logged == due

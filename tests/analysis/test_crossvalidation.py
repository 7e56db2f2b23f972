"""Processes of a cross-validation: none is left behind by a stop."""

import signal
import subprocess
import sys

import pytest

from mlxlab.analysis.crossvalidation import FoldRun, train_folds


def test_a_stop_while_a_process_starts_ends_that_process(tmp_path, monkeypatch):
    started: list[subprocess.Popen] = []
    real = subprocess.Popen

    def start_and_stop(*args, **options):
        started.append(real(*args, **options))
        signal.raise_signal(signal.SIGTERM)
        return started[0]

    def stop(number, _):
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", start_and_stop)
    before = signal.signal(signal.SIGTERM, stop)
    run = FoldRun("seed 0 fold 0", tmp_path / "run", [sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with pytest.raises(KeyboardInterrupt):
            train_folds([run], jobs=1, title="")
        assert started[0].poll() == -signal.SIGTERM
    finally:
        started[0].kill()
        started[0].wait()
        signal.signal(signal.SIGTERM, before)

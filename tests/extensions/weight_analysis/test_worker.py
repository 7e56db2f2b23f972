"""The background worker, and the threads that its work may use."""

import pytest
from threadpoolctl import ThreadpoolController

from mlxlab.backend.openblas import find_openblas
from mlxlab.extensions.weight_analysis.worker import BackgroundWorker, one_numpy_thread


def threads() -> dict[str, int]:
    return {entry["filepath"]: entry["num_threads"] for entry in ThreadpoolController().info()}


def test_only_numpy_is_limited_to_one_thread():
    pytest.importorskip("scipy_openblas32")
    find_openblas()  # that of MLX is loaded
    with ThreadpoolController().limit(limits=2):
        before = threads()
        with one_numpy_thread():
            assert {path for path, count in threads().items() if count == 1} == {
                p for p in before if "numpy.libs" in p
            }
        assert threads() == before


def test_a_result_and_an_error_wait_until_they_are_taken():
    worker: BackgroundWorker[int] = BackgroundWorker("test")
    worker.start(3, lambda: 5)
    assert worker.busy
    assert (worker.step, worker.take()) == (3, 5)
    assert not worker.busy
    worker.start(4, lambda: 1 // 0)
    assert isinstance(worker.take(), ZeroDivisionError)

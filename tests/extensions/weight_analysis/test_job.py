"""The background job, and the threads that its work may use."""

import pytest
from threadpoolctl import ThreadpoolController

from mlxlab.backend.openblas import find_openblas
from mlxlab.extensions.weight_analysis.callback import AnalysisJob, one_numpy_thread


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


def test_a_job_has_a_result_or_an_error():
    job = AnalysisJob(3, lambda: {"a": 5.0})
    job.start()
    job.join()
    assert (job.step, job.metrics["a"], job.error) == (3, 5.0, None)
    failing = AnalysisJob(4, lambda: 1 // 0)
    failing.start()
    failing.join()
    assert isinstance(failing.error, ZeroDivisionError)

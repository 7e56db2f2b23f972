"""Peak FLOP/s of matrix products on this machine, measured once and cached."""

import os
import platform
import time
from contextlib import suppress
from pathlib import Path

from mlxlab.backend.device import describe
from mlxlab.constraints import Positive
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.files.atomic import write_json
from mlxlab.files.untrusted import read_json

FILE = "peak.json"
MIN_SECONDS = 0.01  # a shorter product is mostly overhead: the width is doubled
MAX_WIDTH = 8192


def known_peak(cache: Path, dtype: str) -> float | None:
    """The cached peak in FLOP/s for this machine, device and dtype; None if not measured."""
    return _read(cache).get(_key(dtype))


def measure_peak(cache: Path, dtype: str, seconds: float = 2.0) -> float:
    """The best FLOP/s of square matrix products within `seconds`; stored in `cache`."""
    import mlx.core as mx

    width, elapsed, best, end = 256, 0.0, 0.0, time.perf_counter() + seconds
    while not best or time.perf_counter() < end:
        if elapsed < MIN_SECONDS and width < MAX_WIDTH:
            width *= 2
            x = mx.random.normal((width, width), key=mx.random.key(0)).astype(getattr(mx, _compute_dtype(dtype)))
            mx.eval(x, x @ x)
        start = time.perf_counter()
        mx.eval(x @ x)
        elapsed = time.perf_counter() - start
        best = max(best, 2 * width**3 / elapsed)
    with suppress(OSError):  # without a cache it is measured again in the next run
        cache.mkdir(parents=True, exist_ok=True)
        write_json(cache / FILE, _read(cache) | {_key(dtype): best})
    return best


def _key(dtype: str) -> str:
    """Machine, device, BLAS, number of threads and dtype: all that the peak depends on."""
    import mlx.core as mx

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OPENBLAS_NUM_THREADS", cores)
    name = str(mx.device_info().get("device_name", ""))
    return ", ".join([platform.node(), name, *describe().values(), f"{threads} threads", _compute_dtype(dtype)])


def _compute_dtype(dtype: str) -> str:
    """On a CPU MLX multiplies low precision in float32."""
    import mlx.core as mx

    return "float32" if mx.default_device() == mx.Device(mx.cpu) else dtype


def _read(cache: Path) -> dict[str, float]:
    try:
        return read_json(cache / FILE, dict[str, Positive])
    except (InputNotFoundError, DataError):
        return {}  # it is measured again

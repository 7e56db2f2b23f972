"""Peak FLOP/s of matrix products on this machine, measured once and cached."""

import json
import os
import platform
import time
from pathlib import Path

from mlxlab.backend.device import describe

FILE = "peak.json"
QUICK = 0.01  # seconds: a product that takes less is mostly overhead, and gives way to one twice as wide
WIDEST = 8192


def known_peak(cache: Path, dtype: str) -> float | None:
    """The cached peak in FLOP/s for this machine, device and dtype; None if it was never measured."""
    found = _read(cache / FILE).get(_key(dtype))
    return float(found) if isinstance(found, int | float) and found > 0 else None


def measure_peak(cache: Path, dtype: str, seconds: float = 2.0) -> float:
    """The best FLOP/s of square matrix products within `seconds`; stored in `cache`.

    On a CPU low precision is measured as float32, in which its products are made.
    """
    import mlx.core as mx

    width, best, end = 512, 0.0, time.perf_counter() + seconds
    kind = getattr(mx, _computed(dtype))
    x = mx.random.normal((width, width), key=mx.random.key(0)).astype(kind)
    mx.eval(x @ x)
    while not best or time.perf_counter() < end:
        start = time.perf_counter()
        mx.eval(x @ x)
        taken = time.perf_counter() - start
        best = max(best, 2 * width**3 / taken)
        if taken < QUICK and width < WIDEST:
            width *= 2
            x = mx.random.normal((width, width), key=mx.random.key(0)).astype(kind)
            mx.eval(x, x @ x)
    _keep(cache / FILE, _key(dtype), best)
    return best


def _key(dtype: str) -> str:
    """Identifies what the figure depends on."""
    import mlx.core as mx

    facts = describe()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OPENBLAS_NUM_THREADS", cores)
    name = mx.device_info().get("device_name", "")
    return ", ".join(
        [platform.node(), str(name), facts["device"], facts["blas"], f"{threads} threads", _computed(dtype)]
    )


def _computed(dtype: str) -> str:
    import mlx.core as mx

    return "float32" if mx.default_device() == mx.Device(mx.cpu) else dtype


def _read(path: Path) -> dict[str, float]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # it can be measured again
    return found if isinstance(found, dict) else {}


def _keep(path: Path, key: str, value: float) -> None:
    """A cache that cannot be written costs two seconds in the next run, and no more."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(_read(path) | {key: value}, indent=1) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError:
        pass

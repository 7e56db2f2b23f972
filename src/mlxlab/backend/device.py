"""Prepares MLX on this machine: a fast BLAS on Linux CPU, the device, memory limits.

Environment: `MLXLAB_BLAS=0` keeps the BLAS of the wheel; `MLXLAB_DEVICE=cpu|gpu` selects the device;
`MLXLAB_MEMORY` limits the memory of MLX, in GB (default: 80 % of the machine or container).
On macOS `AGX_RELAX_CDM_CTXSTORE_TIMEOUT` is set to 1 unless it is set already.
`OMP_WAIT_POLICY` is set to passive unless it is set already: on a busy machine threads of scikit-learn that spin while
they wait take ten times as long as those that sleep.
"""

import atexit
import os
import sys
import warnings
from contextlib import suppress

from mlxlab.backend.memory import total_memory
from mlxlab.backend.openblas import use_openblas
from mlxlab.errors import ConfigError

# MLX caches 32 MB of CPU buffers by default, so every step would map its logits again.
CACHE_BYTES = 2 << 30
# Apple's driver reads it: macOS kills long GPU work while a display is active (ml-explore/mlx issue 3267).
METAL_TIMEOUT = "AGX_RELAX_CDM_CTXSTORE_TIMEOUT"
_state = {"blas": "as installed"}


def prepare() -> str:
    """Prepares MLX, best before it is imported; returns the BLAS in use. ConfigError if the device is not available."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if sys.platform == "darwin":
        os.environ.setdefault(METAL_TIMEOUT, "1")
    is_wanted = sys.platform == "linux" and os.environ.get("MLXLAB_BLAS", "1") != "0"
    if is_wanted and _state["blas"] == "as installed":
        try:
            if use_openblas(_products_are_exact):
                _state["blas"] = "openblas"
                atexit.register(_wait_for_products, os.getpid())
        except (OSError, ImportError) as error:
            _state["blas"] = "reference"
            warnings.warn(
                f"OpenBLAS is not used, matrix products are some 20 times slower: {error}",
                stacklevel=2,
            )
    import mlx.core as mx

    device = os.environ.get("MLXLAB_DEVICE")
    if device:
        kinds = {"cpu": mx.cpu, "gpu": mx.gpu}
        if device not in kinds:
            raise ConfigError(f"MLXLAB_DEVICE={device}: expected cpu or gpu")
        if not mx.is_available(kinds[device]):
            raise ConfigError(
                f"MLXLAB_DEVICE={device}: not available on this machine or in this build of MLX"
            )
        mx.set_default_device(mx.Device(kinds[device]))
    if on_cpu():
        mx.set_memory_limit(_memory_limit())
        mx.set_cache_limit(min(CACHE_BYTES, _memory_limit() // 4))
    else:
        limit_gpu_memory()
    return _state["blas"]


def limit_gpu_memory() -> None:
    """Bounds what MLX allocates on a GPU, and what it caches: by default nearly all of the device's memory."""
    import mlx.core as mx

    budget = memory_budget()
    mx.set_cache_limit(budget // 4)
    if os.environ.get("MLXLAB_MEMORY"):
        mx.set_memory_limit(budget)
    elif mx.metal.is_available():  # beyond the recommended size Metal pages, or kills the process
        mx.set_memory_limit(budget)
        mx.set_wired_limit(budget)


def describe() -> dict[str, str]:
    """Device and BLAS."""
    import mlx.core as mx

    return {"device": str(mx.default_device()), "blas": _state["blas"]}


def on_cpu() -> bool:
    import mlx.core as mx

    return mx.default_device() == mx.Device(mx.cpu)


def on_linux_cpu() -> bool:
    return sys.platform == "linux" and on_cpu()


def memory_budget() -> int:
    """Max bytes for a run: the recommended working set of the device, or the limit that was set."""
    import mlx.core as mx

    if on_cpu() or os.environ.get("MLXLAB_MEMORY"):
        return _memory_limit()
    info = mx.device_info()
    for key in ("max_recommended_working_set_size", "total_memory", "memory_size"):
        if info.get(key):
            return int(info[key])
    return _memory_limit()


def _products_are_exact() -> bool:
    """Compares a product of integers, which is exact in float32, bit by bit with NumPy."""
    import mlx.core as mx
    import numpy as np

    a = np.arange(35, dtype=np.float32).reshape(5, 7)
    b = np.arange(21, dtype=np.float32).reshape(7, 3)
    with mx.stream(mx.cpu):
        return bool(np.array_equal(np.array(mx.array(a) @ mx.array(b)), a @ b))


def _wait_for_products(process: int) -> None:
    """OpenBLAS hangs or crashes if the process ends while a thread of MLX computes with it."""
    import mlx.core as mx

    if os.getpid() == process:  # a forked child has none of the threads
        mx.synchronize(mx.default_stream(mx.cpu))


def _memory_limit() -> int:
    """Bytes that MLX may use: those of `MLXLAB_MEMORY`, or 80 % of the container; MLX ignores containers."""
    setting = os.environ.get("MLXLAB_MEMORY")
    if setting:
        with suppress(ValueError):
            if 0 < float(setting) < 1e6:
                return int(float(setting) * 1e9)
        raise ConfigError(f"MLXLAB_MEMORY={setting}: expected a number of GB > 0")
    return int(0.8 * total_memory())

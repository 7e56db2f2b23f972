"""MLX multiplies with OpenBLAS on Linux CPU, before and after its import, or says once that it does not."""

import os
import subprocess
import sys
from importlib.metadata import distributions

import pytest

from mlxlab.backend import openblas
from mlxlab.errors import ConfigError

PROCESS = """
import sys, warnings
{first}
from mlxlab import backend
assert ("mlx.core" in sys.modules) == {imported}, "mlxlab.backend itself imports nothing heavy"
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print("blas", backend.prepare(), backend.prepare(), len(caught), *[w.message for w in caught])
import mlx.core as mx, numpy as np
with mx.stream(mx.cpu):
    for dtype in (np.float32, np.complex64):
        a = np.arange(48).reshape(6, 8).astype(dtype)
        assert np.array_equal(np.array(mx.array(a) @ mx.array(a.T)), a @ a.T)
"""


def linux_cpu():
    installed = {(found.metadata["Name"] or "").lower() for found in distributions()}
    return sys.platform == "linux" and "mlx-cpu" in installed


def output(code, **environment):
    """What a fresh process prints."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "2"} | environment
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def answer(first="", **environment):
    """The BLAS in use (of two calls), the number of warnings, their text."""
    return output(PROCESS.format(first=first, imported="mlx.core" in first), **environment)


needs_linux_cpu = pytest.mark.skipif(
    not linux_cpu(), reason="the BLAS is replaced on Linux CPU only"
)


OPENBLAS = "from mlxlab.backend import openblas; folders = openblas._folders(); "


@needs_linux_cpu
@pytest.mark.parametrize(
    "first",
    [
        "",
        "import mlx.core as mx; mx.eval(mx.ones((4, 4)) @ mx.ones((4, 4)))",
        f"{OPENBLAS}openblas._folders = lambda: folders[1:]",  # that of SciPy
    ],
)
def test_openblas_multiplies_whenever_mlx_was_imported(first):
    assert answer(first) == "blas openblas openblas 0"


def test_it_can_be_turned_off():
    assert answer(MLXLAB_BLAS="0") == "blas as installed as installed 0"


# `getpid` takes anything and writes nothing: what MLX then finds in the result is not the product.
WRONG = "import ctypes; pid = ctypes.cast(ctypes.CDLL(None).getpid, ctypes.c_void_p).value; "
READ_ONLY = "[(span, 'r--p', *rest) for span, _, *rest in mapped()]"


@needs_linux_cpu
@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (f"{OPENBLAS}openblas._folders = lambda: []", "scipy-openblas32 is not installed"),
        (f"{WRONG}{OPENBLAS}openblas._address = lambda *_: pid", "its products were wrong"),
        (
            f"{OPENBLAS}mapped = openblas._mappings; openblas._mappings = lambda: {READ_ONLY}",
            "jump table is read-only",
        ),
    ],
)
def test_without_openblas_there_is_one_warning_and_right_products(first, reason):
    printed = answer(first)
    assert printed.startswith("blas reference reference 1 OpenBLAS is not used")
    assert reason in printed


PREPARE = "import mlx.core as mx; from mlxlab import backend; backend.prepare(); "


@needs_linux_cpu
def test_a_process_may_end_while_openblas_computes():
    output(f"{PREPARE}x = mx.ones((800, 800)); mx.async_eval(x @ x @ x @ x @ x @ x @ x)")


@needs_linux_cpu
def test_device_and_memory_are_those_of_the_environment():
    code = f"{PREPARE}print(mx.default_device(), mx.set_memory_limit(1), mx.set_cache_limit(1))"
    printed = output(code, MLXLAB_DEVICE="cpu", MLXLAB_MEMORY="4")
    assert printed == "Device(cpu, 0) 4000000000 1000000000"


def test_mlx_for_cuda_is_left_alone(tmp_path, monkeypatch):
    library = tmp_path / "mlx" / "lib" / "libmlx.so"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"not read")
    (tmp_path / "mlx_cuda_13.libs").mkdir()
    monkeypatch.setattr(openblas, "mlx_library", lambda: library)
    assert not openblas.use_openblas(lambda: pytest.fail("nothing to check"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("MLXLAB_DEVICE", "tpu"), ("MLXLAB_MEMORY", "lots"), ("MLXLAB_MEMORY", "nan")],
)
def test_a_wrong_word_is_refused_by_name(name, value, monkeypatch):
    from mlxlab import backend

    monkeypatch.setenv(name, value)
    if name == "MLXLAB_MEMORY":
        monkeypatch.setenv("MLXLAB_DEVICE", "cpu")
    with pytest.raises(ConfigError, match=f"{name}={value}"):
        backend.prepare()

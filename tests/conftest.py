"""Settings of all tests and of the processes that they start."""

import gc
import os
import platform
import sys
from collections.abc import Iterator

import pytest

# Threads of OpenBLAS and OpenMP spin, and the suite runs many small processes on few cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Processes that tests start keep their bytecode, as those of a user do: compiling takes a tenth of their start.
# This process keeps that of the tests: rewriting their assertions takes seconds in each worker.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Composing a config makes many objects and no garbage: a tenth of its time went into collections.
gc.set_threshold(50_000, 20, 50)

# No test cuts the power: what a process wrote survives its death in any case, and a disk takes milliseconds each time.
os.fsync = lambda descriptor: None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--native",
        choices=("on", "off"),
        default="off",
        help="native kernels in tests and their processes",
    )


def pytest_configure(config: pytest.Config) -> None:
    os.environ["MLXLAB_NATIVE"] = "require" if config.getoption("--native") == "on" else "off"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test that is one process begins first, so that no worker waits for it at the end."""
    items.sort(key=lambda item: item.name != "test_the_linters_agree[mypy]")


@pytest.fixture(scope="session", autouse=True)
def caches() -> None:
    from support.caches import cache_results
    from support.new_stores import copy_databases

    cache_results()
    copy_databases()


@pytest.fixture(scope="session", autouse=True)
def kernels(request: pytest.FixtureRequest) -> None:
    """The kernels of this process; the native ones are built once, into the user's cache."""
    if request.config.getoption("--native") == "on":
        from mlxlab import backend
        from mlxlab.backend.ops.native.activation import activate

        backend.prepare()
        activate("require")


@pytest.fixture
def mlx_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Only those of MLX, whatever the rest of the suite uses."""
    from mlxlab.backend.ops.native import state

    before = state.current()
    monkeypatch.setenv("MLXLAB_NATIVE", "off")
    state.deactivate()
    yield
    state.use(before)


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """The native kernels, whatever the rest of the suite uses."""
    if platform.system() != "Linux":
        pytest.skip("the kernels are for Linux")
    from mlxlab import backend
    from mlxlab.backend.ops.native import state
    from mlxlab.backend.ops.native.activation import activate
    from mlxlab.backend.ops.native.toolchain import KernelsUnavailable, find_toolchain

    backend.prepare()
    try:
        find_toolchain()
    except KernelsUnavailable as reason:
        pytest.skip(str(reason))
    before = state.current()
    monkeypatch.setenv("MLXLAB_NATIVE", "require")
    yield activate("require")
    state.use(before)

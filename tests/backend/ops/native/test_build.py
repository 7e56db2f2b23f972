"""A build: once for all processes, complete or without effect, and its failures are remembered."""

import os
import platform
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from mlxlab.backend.ops.native import build as module
from mlxlab.backend.ops.native.build import Cache, build
from mlxlab.backend.ops.native.toolchain import find_toolchain
from support.tracking import wait_until

pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="the kernels are for Linux")

WRITE = """
for argument; do [ "$last" = -o ] && output=$argument; last=$argument; done
[ -n "$output" ] && echo run >> "$0.runs" && echo "$TMPDIR" > "$0.folder" && echo library > "$output"
"""


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """Makes a program that is used as the compiler, from the lines of its shell script."""

    def write(script: str) -> Path:
        path = tmp_path / "compiler"
        path.write_text(f"#!/bin/sh\n{script}")
        path.chmod(0o700)
        monkeypatch.setenv("CXX", str(path))
        return path

    return write


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Cache()


def passes(library: Path) -> None:
    assert library.is_file()


def fails(library: Path) -> str:
    return "the self-check failed: attention differs"


def files(cache):
    return sorted(path.suffix for path in cache.folder.iterdir())


def test_a_build_leaves_a_library_and_the_compilers_output(compiler, cache):
    program = compiler(f"{WRITE}\necho a warning >&2")
    toolchain = find_toolchain()
    build(toolchain, cache, check=passes)
    assert cache.has_library(toolchain.key)
    assert cache.path(toolchain.key, "log").read_text() == "a warning\n"
    assert files(cache) == [".lock", ".log", ".so"]
    assert Path(program.with_name("compiler.folder").read_text().strip()).parent == cache.folder
    build(toolchain, cache, check=fails)
    assert cache.failure(toolchain.key) is None, "built twice"


def test_one_of_many_builds_at_the_same_time_runs_the_compiler(compiler, cache):
    program = compiler(f"sleep 0.3\n{WRITE}")
    toolchain, found = find_toolchain(), []

    def build_and_look():
        build(toolchain, cache, check=passes)
        found.append(cache.has_library(toolchain.key))

    threads = [threading.Thread(target=build_and_look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert program.with_name("compiler.runs").read_text() == "run\n"
    assert found == [True] * 4


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("echo native.cpp:1: error: bad >&2; exit 3", "3: native.cpp:1: error: bad"),
        ("exit 1", "1: without a message"),
    ],
)
def test_a_failed_compiler_is_remembered_until_a_build_again(compiler, cache, script, error):
    program = compiler(f'echo run >> "$0.runs"; {script}')
    toolchain = find_toolchain()
    for _ in range(2):
        build(toolchain, cache, check=passes)
        assert cache.failure(toolchain.key) == f"the compiler failed with exit code {error}"
    assert program.with_name("compiler.runs").read_text() == "run\n"
    build(toolchain, cache, again=True, check=passes)
    assert program.with_name("compiler.runs").read_text() == "run\nrun\n"
    assert ".so" not in files(cache)


def test_a_failed_self_check_is_remembered_and_leaves_no_library(compiler, cache):
    compiler(WRITE)
    toolchain = find_toolchain()
    build(toolchain, cache, check=fails)
    build(toolchain, cache, check=passes)
    assert cache.failure(toolchain.key) == "the self-check failed: attention differs"
    assert files(cache) == [".error", ".lock", ".log"]
    build(toolchain, cache, again=True, check=passes)
    assert cache.failure(toolchain.key) is None
    build(toolchain, cache, again=True, check=fails)
    assert not cache.has_library(toolchain.key)


def test_a_compiler_that_hangs_is_killed_with_its_children(compiler, cache, monkeypatch):
    monkeypatch.setattr(module, "BUILD_SECONDS", 0.3)
    program = compiler('sleep 600 & echo $! > "$0.child"; wait')
    toolchain = find_toolchain()
    build(toolchain, cache, check=passes)
    assert cache.failure(toolchain.key) == "the compiler took more than 0 s"
    child = int(program.with_name("compiler.child").read_text())
    wait_until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie")


def test_a_killed_build_leaves_nothing_that_is_used(compiler, cache):
    program = compiler(f'touch "$0.began"; sleep 1; {WRITE}')
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-P", "-m", "mlxlab.backend.ops.native.build"]
    process = subprocess.Popen(command, env=environment)
    wait_until(program.with_name("compiler.began").exists)
    assert cache.is_building()
    process.kill()
    process.wait()
    assert not cache.is_building()
    toolchain = find_toolchain()
    assert not cache.was_built(toolchain.key)
    compiler(WRITE)
    build(find_toolchain(), cache, check=passes)
    assert files(cache) == [".lock", ".log", ".so"], "leftovers"

"""A build: once for all processes, complete or without effect, and its failures are remembered."""

import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from mlxlab.ops.native import build as module
from mlxlab.ops.native.build import build
from mlxlab.ops.native.cache import Cache
from mlxlab.ops.native.toolchain import KernelsUnavailable, find_toolchain

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


def passes(library: Path) -> tuple[None, str]:
    assert library.stat().st_mode & 0o77 == 0
    return None, "avx512"


def fails(library: Path) -> tuple[str, str]:
    return "the self-check failed: attention differs", ""


def files(cache):
    return sorted(path.suffix for path in cache.folder.iterdir())


def test_a_build_leaves_a_library_its_record_and_the_compilers_output(compiler, cache):
    program = compiler(f"{WRITE}\necho a warning >&2")
    toolchain = find_toolchain()
    record = build(toolchain, cache, check=passes)
    assert (record["error"], record["features"]) == (None, "avx512")
    assert cache.record(toolchain.key) == record
    assert cache.path(toolchain.key, "log").read_text() == "a warning\n"
    assert files(cache) == [".json", ".lock", ".log", ".so"]
    assert Path(program.with_name("compiler.folder").read_text().strip()).parent == cache.folder
    assert build(toolchain, cache, check=fails) == record, "built twice"


def test_one_of_many_builds_at_the_same_time_runs_the_compiler(compiler, cache):
    program = compiler(f"sleep 0.3\n{WRITE}")
    toolchain, records = find_toolchain(), []
    threads = [
        threading.Thread(target=lambda: records.append(build(toolchain, cache, check=passes)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert program.with_name("compiler.runs").read_text() == "run\n"
    assert len(records) == 4
    assert all(record == records[0] for record in records)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (
            "echo native.cpp:1: error: bad >&2; exit 3",
            "the compiler failed with exit code 3: native.cpp:1: error: bad",
        ),
        ("exit 1", "the compiler failed with exit code 1: without a message"),
        ("exit 0", "the compiler wrote no library"),
    ],
)
def test_a_failed_compiler_is_remembered_until_a_build_again(compiler, cache, script, error):
    program = compiler(f'echo run >> "$0.runs"; {script}')
    toolchain = find_toolchain()
    for _ in range(2):
        record = build(toolchain, cache, check=passes)
        assert record["error"] == error
    assert program.with_name("compiler.runs").read_text() == "run\n"
    build(toolchain, cache, again=True, check=passes)
    assert program.with_name("compiler.runs").read_text() == "run\nrun\n"
    assert ".so" not in files(cache)


def test_a_failed_self_check_is_remembered_and_leaves_no_library(compiler, cache):
    compiler(WRITE)
    toolchain = find_toolchain()
    build(toolchain, cache, check=fails)
    record = build(toolchain, cache, check=passes)
    assert record["error"] == "the self-check failed: attention differs"
    assert files(cache) == [".json", ".lock", ".log"]
    assert build(toolchain, cache, again=True, check=passes)["error"] is None


def test_a_compiler_that_hangs_is_killed_with_its_children(compiler, cache, monkeypatch):
    monkeypatch.setattr(module, "BUILD_SECONDS", 0.3)
    program = compiler('sleep 600 & echo $! > "$0.child"; wait')
    assert (
        build(find_toolchain(), cache, check=passes)["error"] == "the compiler took more than 0 s"
    )
    child = int(program.with_name("compiler.child").read_text())
    until = time.monotonic() + 5
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_killed_build_leaves_nothing_that_is_used(compiler, cache):
    program = compiler(f'touch "$0.began"; sleep 1; {WRITE}')
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "mlxlab.ops.native.build"], env=environment
    )
    until = time.monotonic() + 60
    while not program.with_name("compiler.began").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    assert cache.is_building()
    process.kill()
    process.wait()
    assert not cache.is_building()
    toolchain = find_toolchain()
    assert cache.record(toolchain.key) is None
    compiler(WRITE)
    build(find_toolchain(), cache, check=passes)
    assert files(cache) == [".json", ".lock", ".log", ".so"], "leftovers"


def test_a_folder_that_cannot_be_made_is_named(compiler, cache):
    compiler(WRITE)
    cache.folder.parent.parent.write_text("")
    with pytest.raises(KernelsUnavailable, match="cannot be created"):
        build(find_toolchain(), cache, check=passes)

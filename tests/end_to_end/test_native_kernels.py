"""Native kernels from the build to a resumed run, with the machine's compiler: `pytest -m fault_injection`."""

import json
import os
import platform
import shutil
import subprocess
import sys
import time

import pytest

from mlxlab.backend.ops.native.build import Cache, build
from mlxlab.backend.ops.native.toolchain import KernelsUnavailable, find_toolchain
from mlxlab.checkpoint.store import load_named
from mlxlab.record.run_file import read_run
from support.processes import final_state, killed_and_resumed, run, succeed, tiny_overrides

pytestmark = [
    pytest.mark.fault_injection,
    pytest.mark.skipif(
        platform.system() != "Linux" or not shutil.which("g++"), reason="needs Linux and g++"
    ),
]
TINY = tiny_overrides("trainer.max_steps=20", "trainer.eval_every=10")
LONGER = "trainer.max_steps=21"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A cache home with the kernels, and what a run with them records."""
    home = tmp_path_factory.mktemp("cache")
    done = succeed("build", script="kernels", XDG_CACHE_HOME=str(home), MLXLAB_NATIVE="")
    again = run("build", script="kernels", XDG_CACHE_HOME=str(home), MLXLAB_NATIVE="")
    assert (again.stdout, again.stderr) == (done.stdout, "")
    return home, done.stdout.strip()


@pytest.fixture
def variables(built):
    return {"XDG_CACHE_HOME": str(built[0]), "MLXLAB_NATIVE": "auto"}


@pytest.fixture(scope="module")
def native_run(built, tmp_path_factory):
    """A run with native kernels, its folder and its final state."""
    folder = tmp_path_factory.mktemp("run")
    done = run(*TINY, f"hydra.run.dir={folder}", XDG_CACHE_HOME=str(built[0]), MLXLAB_NATIVE="auto")
    assert f"kernels: {built[1]}" in done.stderr
    return folder, final_state(done)


def test_the_first_run_starts_the_build_and_a_later_one_uses_it(tmp_path):
    variables = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "MLXLAB_NATIVE": "auto"}
    short = tiny_overrides("trainer.max_steps=1", "trainer.eval_every=1")
    first = succeed(*short, f"hydra.run.dir={tmp_path}/first", **variables)
    assert (
        first.stderr.count(
            "native kernels are being built in the background; later runs use them\n"
        )
        == 1
    )
    assert read_run(tmp_path / "first").code.kernels == "none"
    until = time.monotonic() + 300
    while (status := info(**variables)["status"]) != "ready":
        assert status in ("building", "not built")
        assert time.monotonic() < until
        time.sleep(0.5)
    later = run(*short, f"hydra.run.dir={tmp_path}/later", **variables)
    assert "kernels: native " in later.stderr
    longer = tiny_overrides("trainer.max_steps=2", "trainer.eval_every=1")
    resumed = succeed(*longer, f"hydra.run.dir={tmp_path}/first", "resume=auto", **variables)
    assert "native" not in resumed.stderr
    longer = tiny_overrides("trainer.max_steps=3", "trainer.eval_every=1")
    fork = run(*longer, f"hydra.run.dir={tmp_path}/fork", f"resume={tmp_path}/first", **variables)
    assert "kernels: native " in fork.stderr


def info(**variables):
    return json.loads(run("info", "--json", script="kernels", **variables).stdout)


def test_the_kernels_of_a_run_are_recorded(built, native_run):
    folder, _ = native_run
    lock = json.loads((folder / "run.lock").read_text())
    assert lock["machine"]["kernels"] == built[1]
    assert read_run(folder).code.kernels == built[1]
    assert load_named("last", folder).state["metadata"]["kernels"] == built[1]
    assert f"kernels    {built[1]}\n" in run(f"run={folder}", script="info").stdout


def test_runs_with_native_kernels_are_equal_bit_for_bit(tmp_path, variables, native_run):
    again = run(
        *TINY,
        f"hydra.run.dir={tmp_path}",
        "backend.native=require",
        **(variables | {"MLXLAB_NATIVE": ""}),
    )
    assert final_state(again) == native_run[1]


def test_a_killed_and_resumed_run_ends_in_the_same_state(
    tmp_path, monkeypatch, variables, native_run
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert killed_and_resumed(TINY, tmp_path, 10) == native_run[1]


def test_verify_and_reproduce_use_the_kernels_of_the_run(tmp_path, variables, native_run):
    folder, _ = native_run
    succeed(f"run={folder}", script="verify", **variables)
    refused = run(f"run={folder}", script="verify", **(variables | {"MLXLAB_NATIVE": "off"}))
    assert refused.returncode == 77
    variables = variables | {"MLXLAB_NATIVE": ""}
    reproduced = run(f"run={folder}", f"out={tmp_path}/again", script="reproduce", **variables)
    assert "\nbit-exact: " in reproduced.stdout, reproduced.stderr
    assert "kernels: native " in reproduced.stderr


@pytest.mark.parametrize(
    ("change", "override", "message"),
    [
        ({}, "backend.native=off", "backend.native=off: the run began with kernels native"),
        ({"MLXLAB_NATIVE": "off"}, LONGER, "MLXLAB_NATIVE=off: the run began with kernels native"),
        ({"CXX": "no-such-compiler"}, LONGER, "are not available: CXX='no-such-compiler'"),
        ({"MLXLAB_NATIVE_ARCH": "x86-64"}, LONGER, "here they are native"),
    ],
)
def test_a_resume_with_other_kernels_is_refused_in_one_line(
    variables, native_run, change, override, message
):
    if "MLXLAB_NATIVE" not in change:
        variables = variables | {"MLXLAB_NATIVE": ""}
    folder, _ = native_run
    refused = run(f"hydra.run.dir={folder}", "resume=auto", override, **(variables | change))
    assert refused.returncode == 77, refused.stderr
    assert message in refused.stderr.splitlines()[-1]
    assert "Traceback" not in refused.stderr


def test_require_builds_first(tmp_path):
    short = tiny_overrides("trainer.max_steps=1", "trainer.eval_every=1", "backend.native=require")
    done = succeed(
        *short, f"hydra.run.dir={tmp_path}/run", XDG_CACHE_HOME=str(tmp_path), MLXLAB_NATIVE=""
    )
    assert "native kernels: building them with " in done.stderr
    assert "kernels: native " in done.stderr


CRASH = "#include <cstdlib>\nstruct Crash { Crash() { std::abort(); } } crash;"


@pytest.mark.parametrize(
    ("source", "reason"), [(CRASH, "exit code -6"), ("int nothing;", "cannot be loaded")]
)
def test_a_library_that_crashes_or_is_another_one_fails_its_self_check(
    tmp_path, monkeypatch, source, reason
):
    (tmp_path / "other.cpp").write_text(source)
    compiler = tmp_path / "compiler"
    lines = ['for each; do [ "$last" = -o ] && output=$each; last=$each; done']
    lines += [
        f'[ -n "$output" ] && g++ -shared -fPIC {tmp_path}/other.cpp -o "$output" || g++ --version'
    ]
    compiler.write_text("\n".join(["#!/bin/sh", *lines]))
    compiler.chmod(0o700)
    monkeypatch.setenv("CXX", str(compiler))
    toolchain = find_toolchain()
    cache = Cache(tmp_path / "native")
    build(toolchain, cache)
    failure = cache.failure(toolchain.key) or ""
    assert "the self-check failed: " in failure
    assert reason in failure


def test_a_library_of_another_layout_is_refused(tmp_path, built):
    """`_probe` runs in a process of its own: what it reads may not be mapped."""
    code = """
from mlxlab import backend
backend.prepare()
import mlx.core as mx
from pathlib import Path
from mlxlab.backend.ops.native import kernels
path, *_ = Path({home!r}).rglob("*.so")
kernels.object = type("object", (), {{"__basicsize__": 8}})
try:
    kernels.load(path)
except kernels.KernelsUnavailable as error:
    print(error)
"""
    command = [sys.executable, "-c", code.format(home=str(built[0]))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.stdout == "this build of MLX lays arrays out in another way than expected\n", (
        done.stderr
    )


def test_key_and_load_take_less_than_a_tenth_of_a_second(built, variables):
    code = """
import time
from mlxlab import backend
backend.prepare()
import mlx.core as mx, hashlib, logging
start = time.perf_counter()
from mlxlab.backend.ops.native.activation import activate
activate("auto")
print(time.perf_counter() - start)
"""
    environment = os.environ | variables | {"PYTHONPATH": os.pathsep.join(sys.path)}
    times = [
        float(subprocess.check_output([sys.executable, "-c", code], env=environment))
        for _ in range(5)
    ]
    assert min(times) < 0.1, times


def test_a_cache_of_someone_else_is_refused_and_the_run_goes_on_without(
    tmp_path, variables, native_run
):
    home = tmp_path / "cache"
    shutil.copytree(variables["XDG_CACHE_HOME"], home)
    (home / "mlxlab" / "native").chmod(0o777)
    short = tiny_overrides("trainer.max_steps=1", "trainer.eval_every=1")
    done = succeed(
        *short, f"hydra.run.dir={tmp_path}/run", **(variables | {"XDG_CACHE_HOME": str(home)})
    )
    assert (
        f"native kernels are not used: {home}/mlxlab/native: other users can write it"
        in done.stderr
    )
    with pytest.raises(KernelsUnavailable):
        Cache(home / "mlxlab" / "native").check()

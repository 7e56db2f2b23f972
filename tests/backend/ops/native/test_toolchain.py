"""The key of a library: it holds all that the library depends on, and takes no subprocess."""

import os
import platform
import shutil
import subprocess
import time
from dataclasses import replace

import pytest

from mlxlab.backend.ops.native import toolchain
from mlxlab.backend.ops.native.toolchain import (
    KernelsUnavailable,
    find_toolchain,
)

pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="the kernels are for Linux")


@pytest.fixture
def sources(tmp_path, monkeypatch):
    folder = tmp_path / "sources"
    shutil.copytree(toolchain.SOURCES, folder)
    monkeypatch.setattr(toolchain, "SOURCES", folder)
    return folder


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    path = tmp_path / "compiler"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o700)
    monkeypatch.setenv("CXX", str(path))
    return path


def test_the_key_needs_no_subprocess_and_little_time(monkeypatch, compiler):
    for module, name in ((subprocess, "Popen"), (os, "posix_spawn"), (os, "fork")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("a subprocess"))
    start = time.process_time()
    assert find_toolchain().key == find_toolchain().key
    assert time.process_time() - start < 0.1


def test_another_source_flag_compiler_processor_or_mlx_is_another_key(sources, compiler):
    first = find_toolchain()
    others = [
        replace(first, flags=(*first.flags, "-DX")),
        replace(first, cpu=first.cpu | {"flags": "fpu"}),
        replace(first, mlx_version="0"),
        replace(first, compiler=(*first.compiler, "-m64")),
    ]
    keys, digests = {first.key, *(each.key for each in others)}, {first.digest, others[0].digest}
    compiler.write_text("#!/bin/sh\nexit 1\n")
    keys.add(find_toolchain().key)
    assert find_toolchain().digest == first.digest
    with (sources / "native.cpp").open("a") as file:
        file.write("// changed\n")
    keys.add(find_toolchain().key)
    digests.add(find_toolchain().digest)
    (sources / "more.h").touch()
    keys.add(find_toolchain().key)
    assert len(keys) == 8
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("module", "name", "value", "message"),
    [
        (platform, "system", lambda: "Darwin", "^Darwin .*: expected Linux on x86_64 or aarch64$"),
        (platform, "machine", lambda: "riscv64", "^Linux riscv64: expected Linux on x86_64"),
        (toolchain, "mlx_library", lambda: None, "has no libmlx.so or no headers"),
    ],
)
def test_another_platform_is_named(monkeypatch, module, name, value, message):
    monkeypatch.setattr(module, name, value)
    with pytest.raises(KernelsUnavailable, match=message):
        find_toolchain()


def test_there_are_none_where_mlx_for_cuda_is_installed(monkeypatch, tmp_path):
    library = tmp_path / "mlx" / "lib" / "libmlx.so"
    (tmp_path / "mlx" / "include" / "mlx").mkdir(parents=True)
    (tmp_path / "mlx_cuda_13").mkdir()
    monkeypatch.setattr(toolchain, "mlx_library", lambda: library)
    with pytest.raises(KernelsUnavailable, match="MLX for CUDA is installed"):
        find_toolchain()

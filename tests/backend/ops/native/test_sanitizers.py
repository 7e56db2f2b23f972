"""The kernels and their threads under the compiler's sanitizers."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mlxlab.backend.ops.native.toolchain import SOURCES, find_toolchain

SCRIPT = """
import ctypes, sys
from mlxlab import backend
backend.prepare()
from mlxlab.backend.ops.native import kernels, self_check
kernels.bind(ctypes.PyDLL(sys.argv[1]))
for threads in (1, 3):
    kernels.set_threads(threads)
    assert (error := self_check.check()) is None, error
print("checked")
"""


@pytest.mark.fault_injection
@pytest.mark.usefixtures("native")
def test_no_sanitizer_has_anything_to_say(tmp_path):
    toolchain = find_toolchain()
    flags = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined"
    flags = (*toolchain.flags, *flags.split(), "-fno-omit-frame-pointer")
    library = tmp_path / "library.so"
    subprocess.run(replace(toolchain, flags=flags).command(library), check=True)
    # MLX ends the iteration of an array by an exception of C++, which the sanitizer must know.
    runtimes = [_file_of(toolchain, name) for name in ("libasan.so", "libstdc++.so.6")]
    settings = {
        "LD_PRELOAD": " ".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "MLXLAB_CUSTOM_OPS": "0",
    }
    command = [sys.executable, "-c", SCRIPT, str(library)]
    environment = os.environ | settings
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "checked"), done.stderr[-3000:]


def _file_of(toolchain, library):
    """The path of a library of the compiler."""
    command = [toolchain.compiler[0], f"-print-file-name={library}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.slow
@pytest.mark.usefixtures("native")
@pytest.mark.parametrize(("flags", "arguments"), [(("-fsanitize=thread",), ()), ((), ("fork",))])
def test_loops_on_threads_do_every_index_once(tmp_path, flags, arguments):
    source, program = Path(__file__).parent / "thread_pool.cpp", tmp_path / "program"
    compiler = [*find_toolchain().compiler, "-std=c++20", "-O1", "-pthread", *flags]
    subprocess.run([*compiler, f"-I{SOURCES}", str(source), "-o", str(program)], check=True)
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "right\n", "")

"""The inner loop of a product keeps its sums in registers on processors that this machine may not be."""

import platform
import re
import subprocess

import pytest

from mlxlab.backend.ops.native.toolchain import SOURCES, find_toolchain

PROGRAM = """
#include "tiles.h"
using namespace mlxlab;
template void mlxlab::compute_tile<Float32, TILE_ROWS, true>(const float*, long, const float*, long, TileTarget);
template void mlxlab::compute_tile<Float32, TILE_ROWS, false>(const float*, long, const float*, long, TileTarget);
#if defined(__AVX512BF16__)
template void mlxlab::compute_tile<BFloat16, TILE_ROWS, true>(const uint32_t*, long, const uint32_t*, long, TileTarget);
#endif
"""
# A label and the jump back to it.
LOOP = re.compile(r"^(\.L\d+):\n((?:(?!^\.L\d+:).*\n)*?)\tj\w+\t\1$", re.MULTILINE)


@pytest.mark.fault_injection
@pytest.mark.usefixtures("native")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="instructions of x86-64")
@pytest.mark.parametrize("arch", ["x86-64-v3", "skylake-avx512", "sapphirerapids"])
def test_the_inner_loop_of_a_product_has_no_accesses_to_the_stack(tmp_path, arch):
    toolchain, assembly = find_toolchain(), tmp_path / "tiles.s"
    flags = [flag for flag in toolchain.flags if not flag.startswith("-m")]
    flags += [f"-march={arch}", "-mprefer-vector-width=512", f"-I{SOURCES}"]
    command = [*toolchain.compiler, *flags, "-S", "-xc++", "-", "-o", str(assembly)]
    subprocess.run(command, input=PROGRAM, text=True, check=True)
    bodies = [body for _, body in LOOP.findall(assembly.read_text())]
    bodies = [body for body in bodies if len(re.findall("vfmadd|vdpbf16ps", body)) > 6]
    assert len(bodies) == (3 if arch == "sapphirerapids" else 2)
    for body in bodies:
        assert not re.findall(r".*\(%r[sb]p\).*", body)

"""Measures peers side by side, each in a process of its own, in turn. As a module it is such a process.

Arguments: a module of benchmarks, the name of a subject, and what else the module's `subject` takes. For every line "n"
of standard input it calls the subject n times and prints a line of JSON.
"""

import statistics
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from benchmarks.steps.steps import Measurement, bursts
from mlxlab.errors import ConfigError

NATIVE = "mlxlab, native kernels"
PACKAGES = {
    "PyTorch": ("torch", "torch"),
    "transformers": ("transformers", "torch"),
    "mlx-lm": ("mlx_lm", "mlx_lm"),
}


def peers(compare_with: str, known: Sequence[str]) -> list[str]:
    """mlxlab without and with native kernels, and those of the known peers that `compare_with` names by their package.

    Raises:
        ConfigError: a package is not installed.
    """
    names = ["mlxlab", NATIVE]
    for option in filter(None, compare_with.split(",")):
        for name in known:
            package, needs = PACKAGES[name]
            if needs == option:
                if find_spec(package) is None:
                    raise ConfigError(f"compare_with={option}: {package} is not installed")
                names.append(name)
    return names


def measure(
    module: str, names: Sequence[str], args: Sequence[str], rounds: int
) -> list[Measurement]:
    """Bursts of calls of each subject, in turn."""
    return bursts(names, ["benchmarks.steps.peer_process", module], args, rounds)


def rows(title: str, measurements: list[Measurement], amount: float = 0.0) -> list[tuple[str, ...]]:
    """Title, subject, seconds, `amount` per second, CPU seconds, time of mlxlab relative to it, peak MB."""
    own = measurements[0].median
    lines: list[tuple[str, ...]] = []
    for each in measurements:
        if each.error:
            lines.append((title, each.name, each.error, *("",) * (4 if amount else 3)))
            continue
        rate = (f"{amount / each.median:,.0f}",) if amount else ()
        cpu, ratio = statistics.median(each.cpu), f"{own / each.median:.2f}"
        lines.append(
            (
                title,
                each.name,
                f"{each.median:.3f}",
                *rate,
                f"{cpu:.3f}",
                ratio,
                f"{each.bytes / 1e6:.0f}",
            )
        )
    return lines


def main(module: str, name: str, *args: str) -> None:
    from benchmarks.steps.step_subjects import resident, turns

    if name in ("mlxlab", NATIVE):
        from mlxlab import backend
        from mlxlab.backend.ops.native.activation import activate

        backend.prepare()
        activate("require" if name == NATIVE else "off")
    import mlx.core as mx

    mx.eval(mx.zeros(1))
    baseline = resident()
    call = import_module(f"benchmarks.{module}").subject(name, *args)
    for _ in turns(baseline):
        call()


if __name__ == "__main__":
    main(*sys.argv[1:])

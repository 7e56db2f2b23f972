"""Seconds of a data-parallel step: without sums of gradients, with sums after the backward pass, and during it."""

from benchmarks.alternate import table
from benchmarks.processes.fsdp import measure
from mlxlab.terminal.wording import percent


def overlap(
    size: str = "nano",
    nproc: int = 2,
    rows: int = 8,
    length: int = 256,
    rounds: int = 7,
    step: str = "optimized",
) -> str:
    """Medians of the slowest rank, the three in turn; a causal language model, AdamW, one BLAS thread per process.

    Args:
        nproc: processes on this machine.
        rows, length: of a batch of all processes.
        step: plain or optimized.
    """
    lines: list[tuple[str, ...]] = [
        ("model", "no sums", "sums afterwards", "sums meanwhile", "hidden")
    ]
    for option in size.split(","):
        ranks = measure("processes.overlap_subject", nproc, option, step, rows, length, rounds)
        none, after, during = (
            max(rank[name] for rank in ranks) for name in ("none", "after", "during")
        )
        hidden = (after - during) / (after - none) if after > none else float("nan")
        lines.append(
            (
                f"transformer {option}",
                f"{none:.3f}",
                f"{after:.3f}",
                f"{during:.3f}",
                percent(hidden, 0),
            )
        )
    return table(
        f"seconds of a step, trainer/step={step}, {rows} x {length} tokens, {nproc} processes",
        lines,
    )

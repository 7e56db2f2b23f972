"""The memory that `info` estimates for a training step against the measured peak."""

from pathlib import Path

from benchmarks.alternate import table
from benchmarks.memory.info_subject import LENGTH, ROWS, STEPS, VOCABULARY
from benchmarks.new_process import run_module

KINDS = ("classification", "language_modelling")


def info(model: str = "bert,cnn_hybrid,transformer", size: str = "nano,tiny,small") -> str:
    """The peak of a step in MB of 10^6 bytes, estimated before it is measured; a process for each model and task.

    Args:
        model: families, separated by commas.
        size: options of model/size, separated by commas.
    """
    rows: list[tuple[str, ...]] = [("model", "task", *STEPS)]
    ratios: list[float] = []
    for family in model.split(","):
        for option in size.split(","):
            for kind in KINDS:
                peaks = run_module("memory.info_subject", [family, option, kind], str(Path.cwd()))
                rows.append(
                    (
                        f"{family} {option}",
                        kind.replace("_", " "),
                        *(_cell(*peaks[name]) for name in STEPS),
                    )
                )
                ratios += [
                    estimated / measured for estimated, measured in (peaks[name] for name in STEPS)
                ]
    title = f"estimated / measured peak of a step of {ROWS} x {LENGTH} tokens, vocabulary of {VOCABULARY}, MB (ratio)"
    return f"{table(title, rows)}\n\nratios from {min(ratios):.2f} to {max(ratios):.2f}"


def _cell(estimated: int, measured: int) -> str:
    return f"{estimated / 1e6:.0f} / {measured / 1e6:.0f} ({estimated / measured:.2f})"

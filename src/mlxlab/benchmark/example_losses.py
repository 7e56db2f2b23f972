"""What the losses of every example cost the loop: each step of a small BERT logged, against none."""

import tempfile
from pathlib import Path

from mlxlab.benchmark.alternate import alternate, table
from mlxlab.benchmark.subject import Subject
from mlxlab.callbacks.example_losses import ExampleLosses


def example_losses(size: str = "nano", rounds: int = 9, steps: int = 20) -> str:
    """Rounds of `steps` updates of 32 examples, all of them logged."""
    subject = Subject(size, rows=32, length=40)
    with tempfile.TemporaryDirectory() as folder:
        callback = ExampleLosses(1, 1024, 1_000_000, folder=Path(folder))
        callback.on_start(subject.run)

        def trial(logged: bool) -> None:
            for _ in range(steps):
                subject.step()
                if logged:
                    callback.on_step(subject.run)

        trials = alternate({"none": lambda: trial(False), "every example": lambda: trial(True)}, rounds)
        callback.on_end(subject.run)
        written = sum(file.stat().st_size for file in Path(folder).rglob("*.parquet"))
    alone = trials[0].median
    ratios = sorted(b / a - 1 for a, b in zip(trials[0].seconds, trials[1].seconds, strict=True))
    rows: list[tuple[str, ...]] = [("losses by example", "ms per step", "against none")]
    rows += [(one.name, f"{1000 * one.median / steps:.3f}", f"{one.median / alone - 1:+.2%}") for one in trials]
    title = f"32 examples a step, model/size={size}, {steps} updates a round, medians of {rounds}"
    count = 32 * steps * (rounds + 1)
    end = f"Median of the ratios of neighbouring rounds: {ratios[len(ratios) // 2]:+.2%}. "
    return f"{table(title, rows)}\n\n{end}{written / count:.1f} bytes a row on disk."

"""Overhead of checkpoints: steps without a save, with a blocking save, and with a background save."""

import tempfile
from pathlib import Path

from benchmarks.alternate import alternate, table
from benchmarks.subject import Subject
from mlxlab.terminal.wording import percent
from mlxlab.training.checkpointer import Checkpointer


def saving(size: str = "small", rounds: int = 5, steps: int = 4) -> str:
    """Each round takes `steps` steps with one save after the first."""
    subject = Subject(size, rows=8, length=48)
    with tempfile.TemporaryDirectory() as folder:
        savers = {
            name: Checkpointer(1, 1, name == "in the background", folder=Path(folder) / name[:3])
            for name in ("blocking", "in the background")
        }
        for saver in savers.values():
            saver.store.folder.mkdir(parents=True)

        def trial(saver: Checkpointer | None) -> None:
            for i in range(steps):
                result = subject.step()
                if saver is not None and i == 0:
                    saver.on_step(subject.context, subject.state, result)
            if saver is not None:
                saver.finish()

        variants = {"no save": lambda: trial(None)}
        variants |= {name: (lambda s=saver: trial(s)) for name, saver in savers.items()}  # type: ignore[misc]
        trials = alternate(variants, rounds)
        bytes_saved = sum(
            file.stat().st_size for file in Path(folder, "blo").rglob("*.safetensors")
        )
    baseline = trials[0].median
    rows: list[tuple[str, ...]] = [("variant", "seconds", "overhead per save", "of a step")]
    for measured in trials:
        overhead = measured.median - baseline
        rows.append(
            (
                measured.name,
                f"{measured.median:.2f}",
                f"{overhead:.2f} s",
                percent(overhead / (baseline / steps), 0),
            )
        )
    title = f"{steps} steps at model/size={size} with one save of {bytes_saved / 1e6:.0f} MB, medians of {rounds}"
    return table(title, rows)

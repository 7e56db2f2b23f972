"""What a checkpoint costs the loop: steps alone, with a save that blocks, and with one in the background."""

import tempfile
from pathlib import Path

from benchmarks.alternate import alternate, table
from benchmarks.subject import Subject
from mlxlab.training.checkpointer import Checkpointer


def saving(size: str = "small", rounds: int = 5, steps: int = 4) -> str:
    """Each round takes `steps` updates with one save after the first of them."""
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
        bytes_saved = sum(file.stat().st_size for file in Path(folder, "blo").rglob("*.safetensors"))
    alone = trials[0].median
    rows: list[tuple[str, ...]] = [("variant", "seconds", "lost per save", "of a step")]
    for one in trials:
        lost = one.median - alone
        rows.append((one.name, f"{one.median:.2f}", f"{lost:.2f} s", f"{lost / (alone / steps):.0%}"))
    title = f"{steps} updates at model/size={size} with one save of {bytes_saved / 1e6:.0f} MB, medians of {rounds}"
    return table(title, rows)

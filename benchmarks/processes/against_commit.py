"""CPU seconds of this checkout compared with those of an earlier commit, by commands that both understand."""

import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.alternate import table
from benchmarks.processes.cpu_seconds import adopt_orphans, cpu_seconds

ROOT = Path(__file__).resolve().parents[2]
SHORT = 4
LONG = 104
TITANIC = ("data=titanic", "model=bert", "model/size=nano")
TEXT = (
    "data=streaming",
    "data.tokenizer.vocab_size=2048",
    "model=transformer",
    "model/size=nano",
    "trainer=optimized",
)


@dataclass(frozen=True)
class Tree:
    """A checkout, and a folder for what its runs write."""

    checkout: Path
    work: Path

    def cpu_seconds(self, *args: str) -> float:
        return cpu_seconds(self.work, *args, path=(self.checkout / "src", self.checkout))

    def train(self, *overrides: str) -> float:
        script = str(self.checkout / "scripts" / "train.py")
        return self.cpu_seconds(script, "tracking=none", *overrides)


def against_commit(commit: str = "7b46dabc", rounds: int = 5) -> str:
    """Both trees run each command in turn; a step, a job and the loader are what a longer command adds to a shorter."""
    adopt_orphans()
    with tempfile.TemporaryDirectory() as folder, _worktree(commit, Path(folder)) as reference:
        trees = (Tree(ROOT, Path(folder) / "new"), Tree(reference, Path(folder) / "old"))
        source = Path(folder) / "text.txt"
        _write_text(source)
        for tree in trees:
            tree.work.mkdir()
            _measure(tree, source)  # builds kernels and caches
        figures = [[_measure(tree, source) for tree in trees] for _ in range(rounds)]
    rows: list[tuple[str, ...]] = [("CPU seconds", "this checkout", commit, "ratio of medians")]
    for name in figures[0][0]:
        new = statistics.median(pair[0][name] for pair in figures)
        old = statistics.median(pair[1][name] for pair in figures)
        rows.append((name, f"{new:.4f}", f"{old:.4f}", f"{new / old:.3f}"))
    return table(f"{rounds} rounds in turn", rows)


def _measure(tree: Tree, source: Path) -> dict[str, float]:
    text = (*TEXT, f"data.source={source}")
    start = tree.train(*TITANIC, "trainer.max_steps=1")
    titanic = [tree.train(*TITANIC, f"trainer.max_steps={steps}") for steps in (SHORT, LONG)]
    texts = [tree.train(*text, f"trainer.max_steps={steps}") for steps in (SHORT, LONG)]
    sweeps = [
        tree.train("-m", *TITANIC, "trainer.max_steps=1", f"seed=range({jobs})") for jobs in (1, 4)
    ]
    loader = tree.cpu_seconds("-m", "benchmarks", "suite=loader", f"source={source}", "rounds=3")
    return {
        "start of a run": start,
        "step, titanic": (titanic[1] - titanic[0]) / (LONG - SHORT),
        "step, text": (texts[1] - texts[0]) / (LONG - SHORT),
        "job of a sweep": (sweeps[1] - sweeps[0]) / 3,
        "loader": loader,
    }


def _write_text(path: Path) -> None:
    sources = sorted((ROOT / "src").rglob("*.py"))
    path.write_text("\n".join(file.read_text() for file in sources))


@contextmanager
def _worktree(commit: str, folder: Path) -> Iterator[Path]:
    path = folder / "reference"
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(path), commit], check=True)
    try:
        yield path
    finally:
        subprocess.run([*git, "remove", "--force", str(path)], check=True)

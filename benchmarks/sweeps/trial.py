"""`trial` on planted changes: false keeps of changes that do nothing, and the power for changes that help."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

from benchmarks.alternate import table
from benchmarks.report import UnexpectedResults
from benchmarks.sweeps.trial_simulation import simulate
from mlxlab.cli.train import main
from mlxlab.stats.sequential import MIN_PAIRS
from mlxlab.sweep.trial.pairs import Pairs
from mlxlab.sweep.trial.record import TrialRecord, read_record
from mlxlab.sweep.trial.setup import Budget, Options, prepare_trial, split_args
from mlxlab.terminal.wording import percent

MAX_FALSE_KEEPS, MIN_POWER = 0.05, 0.8
EFFECTS = (1.0, 1.5, 2.0)
BASELINE = [
    *(
        "model.num_layers=1",
        "model.hidden_size=64",
        "model.num_heads=2",
        "model.intermediate_size=128",
    ),
    *("data.templates=[basic]", "data.augment.copies=1", "data.batch_size=16", "data.prefetch=0"),
    *(
        "data.baselines=false",
        "trainer.learning_rate=5e-5",
        "tracking=none",
    ),
    *("~callbacks.memory_monitor", "~callbacks.throughput"),
]
NULL = [  # too small to matter, or without any effect
    *(
        "model.dropout=0.1001",
        "model.dropout=0.0999",
        "trainer.learning_rate=5.0001e-5",
        "trainer.log_every=11",
    ),
    *(
        "trainer.optimizer.weight_decay=0.0101",
        "trainer.optimizer.eps=1.1e-8",
        "trainer.step.max_grad_norm=1.001",
    ),
    *("trainer.label_smoothing=1e-6", "data.eval_batch_size=32", "data.prefetch=1"),
]
REAL = [  # the learning rate of the baseline is far too low, and its runs are short
    *("trainer.learning_rate=3e-4", "trainer.learning_rate=5e-4", "trainer.learning_rate=1e-3"),
    *("trainer.learning_rate=2e-3", "trainer.learning_rate=3e-3", "trainer.learning_rate=5e-3"),
    *(
        "trainer.max_steps={}",
        "trainer/optimizer=muon",
        "trainer/optimizer=lion",
        "trainer/schedule=constant",
    ),
]


@dataclass(frozen=True)
class Edit:
    """A planted change; with an `offset` the changed runs have other seeds, and the change itself does nothing."""

    change: str
    offset: int = 0

    @property
    def name(self) -> str:
        return f"seed + {self.offset}" if self.offset else self.change


def trial(
    draws: int = 2000,
    max_seeds: int = 12,
    null_edits: int = 50,
    real_edits: int = 10,
    steps: int = 30,
) -> str:
    """Simulated gains, then edits of a small classifier on the Titanic data, each tried by the command itself.

    Raises UnexpectedResults if too many changes that do nothing are kept, or too few that help.
    """
    parts = [simulate(draws, max_seeds, EFFECTS)] if draws else []
    if not null_edits and not real_edits:
        return "\n\n".join(parts)
    null = [Edit(change) for change in NULL][:null_edits]
    null += [Edit("data.prefetch=1", offset=1000 * (n + 1)) for n in range(null_edits - len(null))]
    real = [Edit(change.format(8 * steps)) for change in REAL][:real_edits]
    with tempfile.TemporaryDirectory() as name, _working_folder(Path(name)):
        baseline = _train_baseline(Path(name), steps)
        records = {
            edit: _try_edit(edit, baseline, Path(name) / "trials" / str(number), max_seeds)
            for number, edit in enumerate([*null, *real])
        }
    rows: list[tuple[str, ...]] = [
        ("changes", "number", "keep", "discard", "undecided", "pairs of runs")
    ]
    for kind, edits in (
        ("tiny", null[: len(NULL)]),
        ("other seeds", null[len(NULL) :]),
        ("real", real),
    ):
        rows.append(_row(kind, [records[edit] for edit in edits]))
    parts.append(table(f"planted changes, {steps} steps a run, at most {max_seeds} pairs", rows))
    each: list[tuple[str, ...]] = [("change", "verdict", "pairs", "gain", "reason")]
    each += [_edit_row(edit, records[edit]) for edit in [*null[: len(NULL)], *real]]
    text = "\n\n".join([*parts, table("tiny and real changes", each)])
    false_keeps, power = _share(null, records), _share(real, records)
    if (null and false_keeps > MAX_FALSE_KEEPS) or (real and power < MIN_POWER):
        raise UnexpectedResults(
            f"false keeps {percent(false_keeps, 0)}, power {percent(power, 0)}", text
        )
    return text


def _train_baseline(folder: Path, steps: int) -> Path:
    run = folder / "baseline"
    limits = [f"trainer.max_steps={steps}", f"trainer.eval_every={steps}", "trainer.epochs=null"]
    with _silence():
        code = main([*BASELINE, *limits, f"hydra.run.dir={run}"])
    assert code == 0
    return run


def _try_edit(edit: Edit, baseline: Path, folder: Path, max_seeds: int) -> TrialRecord:
    """The record of a trial that runs in this process."""
    texts = split_args([edit.change, "hydra/launcher=basic"], Budget())
    plan = Pairs._plan

    def with_offset(self: Pairs, number: int) -> object:
        question = self.question
        first_seed = question.first_seed + edit.offset * (number % 2)
        try:
            self.question = replace(question, first_seed=first_seed)
            return plan(self, number)
        finally:
            self.question = question

    with _silence(), patch.object(Pairs, "_plan", with_offset):
        options = Options(Budget(), [MIN_PAIRS, max_seeds], folder=folder)
        _, sweep = prepare_trial(str(baseline), texts, options, "mlxlab trial")
        code = main(["-m", *sweep])
    assert code == 0
    return read_record(folder)


@contextmanager
def _working_folder(folder: Path) -> Iterator[None]:
    """Outputs and caches go there."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _silence() -> Iterator[None]:
    with open(os.devnull, "w") as null, redirect_stdout(null):
        yield


def _share(edits: list[Edit], records: dict[Edit, TrialRecord]) -> float:
    return sum(records[edit].verdict == "keep" for edit in edits) / max(len(edits), 1)


def _row(kind: str, records: list[TrialRecord]) -> tuple[str, ...]:
    counts = [
        sum(record.verdict == verdict for record in records)
        for verdict in ("keep", "discard", "undecided")
    ]
    pairs = sum(len(record.gains) for record in records) / max(len(records), 1)
    return (kind, str(len(records)), *map(str, counts), f"{pairs:.1f}")


def _edit_row(edit: Edit, record: TrialRecord) -> tuple[str, ...]:
    mean = sum(record.gains) / max(len(record.gains), 1)
    return (
        edit.name,
        str(record.verdict),
        str(len(record.gains)),
        f"{mean:+.2g}",
        record.reason,
    )

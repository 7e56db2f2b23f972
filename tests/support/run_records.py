"""Records of runs: one with everything that its views show, and those in the folders of runs."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlxlab.errors import InputNotFoundError
from mlxlab.record.run_file import read_run, write_run
from mlxlab.record.run_record import (
    Attempt,
    ClassResult,
    Code,
    Command,
    Data,
    Diagnostics,
    Evaluation,
    Metrics,
    Mistake,
    Model,
    RunRecord,
    SplitResult,
    Status,
    TaskKind,
    Training,
)
from mlxlab.views.run_view import RunView

BEST, CONSTANT = "tfidf_logistic_regression", "majority"


def blank_record(**fields: Any) -> RunRecord:
    """A run of which only some fields are known."""
    values = {"id": "", "name": "", "status": "running", "attempts": []} | fields
    return RunRecord(**values)


def attempt_of(status: Status = "finished", **fields: Any) -> Attempt:
    """An attempt of one minute by a process of another machine."""
    values = {"host": "here", "pid": 1, "process_start": 1e9, "start": 1e9, "end": 1e9 + 60}
    return Attempt(**(values | {"status": status} | fields))


def edit_run(folder: Path, change: Callable[[RunRecord], object]) -> None:
    """Changes the record in a run folder."""
    record = read_run(folder)
    change(record)
    write_run(folder, record)


def make_record() -> RunRecord:
    result = SplitResult(
        split="valid",
        rows=178,
        metrics={"loss": 0.5, "accuracy": 0.76, "roc_auc": 0.8, "calibration_error": 0.04},
        intervals={"accuracy": (0.70, 0.82), "roc_auc": (0.7, 0.9)},
        baselines={BEST: {"accuracy": 0.75}, CONSTANT: {"accuracy": 0.62}},
        gains={BEST: (-0.05, 0.06), CONSTANT: (0.1, 0.2)},
        classes=[
            ClassResult("died", 0.8, 0.9, 0.85, 110),
            ClassResult("survived", 0.7, 0.5, 0.6, 68),
        ],
        diagnostics=Diagnostics(
            names=["died", "survived"],
            confusion=[[99, 11], [34, 34]],
            reliability=[(0.55, 0.5, 20), (0.9, 0.95, 158)],
            precision_recall=[(0.0, 1.0), (0.5, 0.8), (1.0, 0.4)],
            positive_share=0.38,
        ),
    )
    curve = [(step, {"train/loss": 0.7 - step / 1000}) for step in range(10, 210, 10)]
    curve[9][1]["valid/loss"] = 0.6
    curve[19][1].update({"valid/loss": 0.5, "valid/accuracy": 0.76})
    return RunRecord(
        id="0123456789abcdef",
        name="run",
        status="finished",
        attempts=[attempt_of()],
        command=Command(first=["data=titanic", "hydra.run.dir=run"], choices={"model": "bert"}),
        data=Data(
            name="titanic",
            task="classification",
            label="Survived",
            positive_class="survived",
            columns=["Sex", "Age"],
            classes=["died", "survived"],
            num_classes=2,
            rows={"training": 713, "validation": 178},
            seq_len=64,
            measured_rows=891,
            overlaps=[],
        ),
        model=Model(name="bert", parameters=1_400_000, trainable=1_400_000, shape={"layers": 2}),
        training=Training(
            objective="valid/loss",
            steps=200,
            best_step=200,
            batches_per_epoch=50,
            learning_rate=1e-3,
            seconds=60.0,
            evaluations=[(100, 0.6), (200, 0.5)],
            curve=curve,
            final_state="f" * 64,
        ),
        seed=0,
        code=Code(commit="c" * 40, dirty=False, is_locked=True),
        evaluation=Evaluation(
            main_metric="accuracy",
            results=[result],
            mistakes=[Mistake("train.csv:7", "a man of 30", "survived", "died", 0.98)],
        ),
        is_evaluated=True,
    )


def view_of(record: RunRecord) -> RunView:
    return RunView(record, Path("/runs/run"))


def best_metrics(folder: Path) -> Metrics:
    """The metrics of the best evaluation of a run by key, `valid/accuracy`."""
    return read_run(folder).evaluation.keyed_metrics("valid")


def write_result(
    folder: Path,
    metrics: Metrics,
    baselines: Mapping[str, Metrics] | None = None,
    *,
    main_metric: str = "accuracy",
    task: TaskKind = "classification",
    steps: int = 9,
) -> None:
    """Makes the run of a folder one that was evaluated at its end, with the validation metrics `accuracy`, `loss`, ..."""
    folder.mkdir(exist_ok=True)
    record = blank_record(id="0" * 32, name=folder.name, status="finished", attempts=[attempt_of()])
    record.training.steps = steps
    with suppress(InputNotFoundError):
        record = read_run(folder)
    record.data.task = task
    result = SplitResult("valid", 10, metrics, baselines=dict(baselines or {}))
    record.evaluation = Evaluation(main_metric, [result])
    record.is_evaluated = True
    write_run(folder, record)

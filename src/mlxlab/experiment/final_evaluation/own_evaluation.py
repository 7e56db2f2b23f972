"""An evaluation of its own: of a trained model on data of the user's choice."""

from collections.abc import Iterable, Sequence

from mlxlab.baselines.baseline import Baseline
from mlxlab.data.batch import Task
from mlxlab.experiment.final_evaluation.evaluate import MODEL, FinalEvaluation, judge
from mlxlab.experiment.final_evaluation.files import class_names
from mlxlab.experiment.final_evaluation.record import split_record
from mlxlab.markdown import markdown_table
from mlxlab.record import run_record as records
from mlxlab.training.evaluate import Evaluation
from mlxlab.training.metrics.labelled import as_thresholds, main_metric
from mlxlab.views.numbers import number


def judge_evaluation(
    task: Task,
    objective: str,
    step: int,
    evaluation: Evaluation,
    baselines: Sequence[Baseline],
    thresholds: Sequence[float],
) -> FinalEvaluation:
    """The intervals and baselines of an evaluation of its own, on labelled data.

    Args:
        objective: that of the run.
    """
    predictions = {MODEL: evaluation.outputs} | {
        each.name: each.valid[evaluation.positions] for each in baselines
    }
    chosen = as_thresholds(thresholds)
    main = main_metric(task, objective)
    split = judge(
        task,
        main,
        "valid",
        evaluation,
        predictions,
        {each: chosen if each == MODEL else 0.5 for each in predictions},
    )
    return FinalEvaluation(task, main, step, (split,), thresholds=chosen)


def describe_evaluation(results: FinalEvaluation, name: str) -> str:
    """The metrics, and the baselines on the same rows; `name` is that of the data, or ""."""
    from mlxlab.views.pages import evaluation_lines

    task = results.task
    positive = ""
    if task.kind == "classification" and task.num_classes == 2:
        positive = class_names(task)[task.positive_class]
    data = records.Data(task=task.kind, num_classes=task.num_classes, positive_class=positive)
    split = split_record(results, results.splits[0])
    record = records.RunRecord(
        id="",
        name=name,
        status="finished",
        attempts=[],
        data=data,
        evaluation=records.Evaluation(results.main_metric, [split]),
        is_evaluated=True,
    )
    return evaluation_lines(record)


def value_table(title: str, rows: Iterable[tuple[str, float]]) -> str:
    return markdown_table([title, "value"], [(name, number(value)) for name, value in rows])

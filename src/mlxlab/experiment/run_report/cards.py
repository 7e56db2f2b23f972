"""The first screen of a report: what was trained, how good it is, compared with what, and whether to trust it."""

from collections.abc import Sequence

from mlxlab.experiment.run_metrics import Metrics, interval_text
from mlxlab.experiment.run_report.metric_titles import metric_title, unit_of
from mlxlab.experiment.run_report.results import (
    ROWS,
    Results,
    baseline_title,
    compared_with_best,
    first_evaluation,
    gain_sentence,
    objective_of,
    shown,
    student_and_teacher,
)
from mlxlab.experiment.run_report.run_files import RunFiles
from mlxlab.experiment.run_report.what_was_trained import training_card
from mlxlab.html.blocks import Card, Check, Tone
from mlxlab.metric_names import AGREEMENT, VALID, lower_is_better, plain_name
from mlxlab.wording import percent

NO_CONTROL = (
    "Not compared with a control, the same model trained without the teacher: its command is below"
)
_MAX_BASELINES = 4
_TONES: dict[str, Tone] = {"Learned": "bad", "Worse": "bad", "Not": "warning", "No": "warning"}


def all_cards(files: RunFiles, results: Results, checks: Sequence[Check]) -> list[Card]:
    return [
        training_card(files),
        _how_good(files, results),
        _compared(files, results),
        _trust(checks),
    ]


def _how_good(files: RunFiles, results: Results) -> Card:
    if results.value is None:
        return Card(
            "How good is it?",
            "Not known",
            ["No evaluation was finite." if files.state else "Not evaluated."],
        )
    kind = ROWS[results.split]
    interval = interval_text(results.interval)
    low_high = f"95 % interval {interval}" if interval else ""
    count = f"{results.rows:,} {kind} rows" if results.rows else f"{kind} data"
    direction = "lower is better" if lower_is_better(results.metric) else "higher is better"
    lines = [
        ". ".join(filter(None, [f"On the {count}; {direction}", low_high])) + ".",
        _which_evaluation(files),
    ]
    others = [
        f"{metric_title(each, files)} {shown(results.values[each])}{unit_of(each, files)}"
        for each in _others(results)
    ]
    answer = f"{kind} {plain_name(results.metric)} {shown(results.value)}{unit_of(results.metric, files)}"
    return Card("How good is it?", answer, [line for line in [*lines, "; ".join(others)] if line])


def _others(results: Results) -> list[str]:
    names = ("perplexity", "bits_per_byte", "f1_macro", "roc_auc", "r2", "loss")
    return [name for name in names if name in results.values and name != results.metric][:2]


def _which_evaluation(files: RunFiles) -> str:
    metrics, history = files.metrics, files.state["history"] if files.state else None
    best = metrics["best_step"] if metrics else history.best_step if history else 0
    last = metrics["steps"] if metrics else files.state["progress"].step if files.state else 0
    count = (
        len(metrics.get("evaluations", []))
        if metrics
        else len(history.evaluations)
        if history
        else 0
    )
    if not best or not count:
        return ""
    which = (
        f"best of {count} evaluations by {objective_of(files)}" if count > 1 else "only evaluation"
    )
    values = dict(metrics["evaluations"]) if metrics and "evaluations" in metrics else {}
    ties = sum(value == values.get(best) for value in values.values()) - 1 if best in values else 0
    first = f" (the first of {ties + 1} that are equal)" if ties > 0 else ""
    changes = [step for step, _ in files.model_changes if step >= best]
    before = f", from before the model changed at step {changes[0]:,}" if changes else ""
    return f"Weights of the {which}{first}, at step {best:,} of {last:,}{before}."


def _compared(files: RunFiles, results: Results) -> Card:
    before, after = [], []
    if both := student_and_teacher(files):
        before = [_teacher_line(results, *both), *_agreement(both[0]), NO_CONTROL]
    if first := first_evaluation(files, results.metric):
        step, values = first
        named = [
            f"{plain_name(key.removeprefix(VALID))} {shown(value)}" for key, value in values.items()
        ]
        after.append(f"Itself at step {step:,}, the first evaluation: {', '.join(named)}")
    return baselines_card(results, before, after)


def baselines_card(
    results: Results,
    before: Sequence[str] = (),
    after: Sequence[str] = (),
    *,
    is_mean: bool = False,
) -> Card:
    """Whether the model is better than its baselines, with their values between other lines.

    `is_mean` is true of means over runs: the mean of their intervals is no interval of the difference between means.
    """
    question, sign = "Compared with what?", -1 if lower_is_better(results.metric) else 1
    ranked = sorted(results.baselines.items(), key=lambda item: -sign * item[1])
    metric = plain_name(results.metric)
    values = [
        f"{baseline_title(name)}: {metric} {shown(value)}"
        for name, value in ranked[:_MAX_BASELINES]
    ]
    ranking = results.ranking if results.is_no_better else ""
    first = [f"{ranking[0].upper()}{ranking[1:]}."] if ranking else []
    lines = [
        *first,
        *before,
        *filter(None, [gain_sentence(results, is_mean=is_mean)]),
        *values,
        *after,
    ]
    if not lines:
        return Card(
            question, "Nothing", ["No baseline, teacher or earlier evaluation was measured."]
        )
    answer = compared_with_best(results)
    tone: Tone = "bad" if results.is_clearly_worse else _TONES.get(answer.partition(" ")[0], "")
    return Card(question, answer or lines.pop(0), lines, tone=tone)


def _teacher_line(results: Results, student: Metrics, teacher: Metrics) -> str:
    metric = results.metric if results.metric in teacher else "loss"
    sizes = student.get("parameters"), teacher.get("parameters")
    share = (
        f" with {percent(sizes[0] / sizes[1], 0)} of the teacher's parameters"
        if sizes[0] and sizes[1]
        else ""
    )
    own, other = shown(student.get(metric)), shown(teacher.get(metric))
    return f"Student {plain_name(metric)} {own}{share}, the teacher {other} (validation data)"


def _agreement(student: Metrics) -> list[str]:
    share = student.get(AGREEMENT)
    if share is None:
        return []
    return [
        f"With its last weights the student predicts the class of the teacher for {percent(share)} of the rows"
    ]


def _trust(checks: Sequence[Check]) -> Card:
    question = "Can the model be trusted?"
    warnings = [check.meaning or check.title for check in checks if check.state == "warning"]
    unknown = [check.title for check in checks if check.state == "unknown"]
    is_serious, holding = (
        any(check.is_serious for check in checks),
        len(checks) - len(warnings) - len(unknown),
    )
    lines = [f"Attention: {', '.join(warnings).lower()}."] if warnings else []
    lines += [f"Not known: {', '.join(unknown).lower()}."] if unknown else []
    counts = f"{len(warnings)} warning{'s' * (len(warnings) != 1)}, {len(unknown)} not known"
    lines.append(f"{holding} of {len(checks)} checks hold, {counts}; all of them are below.")
    answer = (
        "No"
        if is_serious
        else "With care"
        if warnings
        else "Yes, as far as known"
        if unknown
        else "Yes"
    )
    tone: Tone = "bad" if is_serious else "warning" if warnings else ""
    return Card(question, answer, lines, tone=tone)


def trust_card(warnings: Sequence[str], good: Sequence[str], *, unknown: str, is_bad: bool) -> Card:
    """The last card of a sweep or a comparison; `unknown` is what could not be judged."""
    lines = [f"Attention: {'; '.join(warnings)}."] if warnings else []
    lines += [f"In order: {'; '.join(good)}."] if good else []
    lines += [f"Not known: {unknown}."] if unknown else []
    answer = "No" if is_bad else "With care" if warnings else "Yes"
    return Card(
        "Can the result be trusted?",
        answer,
        lines,
        tone="bad" if is_bad else "warning" if warnings else "good",
    )

"""The first screen of a report: what was trained, how good it is, compared with what, and whether to trust it."""

from collections.abc import Sequence

from mlxlab.config.issues import one_line, value_at
from mlxlab.experiment.run_report.results import (
    ROWS,
    UNIGRAM,
    Results,
    compared_with_best,
    first_evaluation,
    shown,
)
from mlxlab.experiment.run_report.run_files import RunFiles
from mlxlab.html.blocks import Card, Check
from mlxlab.metric_names import lower_is_better

_MAX_BASELINES = 4


def all_cards(files: RunFiles, results: Results, checks: Sequence[Check]) -> list[Card]:
    return [_what(files), _how_good(files, results), _compared(files, results), _trust(checks)]


def _what(files: RunFiles) -> Card:
    choices = files.manifest.get("inputs", {}).get("choices", {})
    model = " ".join(filter(None, [choices.get("model"), choices.get("model/size", "").replace("none", "")]))
    data = choices.get("data", "")
    lines = [" ".join(filter(None, [_parameters(files), _origin(files)])), _source(files), _length(files)]
    answer = " on ".join(filter(None, [model, data])) or files.manifest["name"]
    return Card("What was trained?", one_line(answer, 80), [line for line in lines if line])


def _parameters(files: RunFiles) -> str:
    count = files.manifest.get("outcome", {}).get("parameters")
    return f"{count:,.0f} parameters," if count else ""


def _origin(files: RunFiles) -> str:
    """Where the weights began, and what the model learned from."""
    for parent in files.manifest.get("inputs", {}).get("parents", []):
        if parent["kind"] in ("checkpoint", "pretrained", "init_from"):
            return f"from {one_line(parent['of'], 80)}"
    adapter = files.manifest.get("inputs", {}).get("choices", {}).get("model/adapter", "none")
    return "from random weights" + (f", adapter {adapter}" if adapter != "none" else "")


def _source(files: RunFiles) -> str:
    source = value_at(files.config, "data.source") if files.config else None
    teachers = files.manifest.get("inputs", {}).get("teachers", {})
    lines = [f"Data: {one_line(source, 80)}."] if isinstance(source, str) and source else []
    lines += [f"Distilled from {one_line(', '.join(teachers), 100)}."] if teachers else []
    return " ".join(lines)


def _length(files: RunFiles) -> str:
    outcome = files.manifest.get("outcome", {})
    step = files.state["progress"].step if files.state else outcome.get("steps")
    if step is None:
        return "No step was saved."
    tokens = files.state["progress"].tokens if files.state else outcome.get("tokens", 0)
    device = files.lock["machine"].get("device", "") if files.lock else ""
    where = " on the GPU" if "gpu" in device else " on the CPU" if "cpu" in device else ""
    seconds = outcome.get("wall_seconds")
    took = f" in {_duration(seconds)}" if seconds is not None else ""
    return f"{step:,} steps, {tokens:,} tokens{took}{where}."


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.0f} s"


def _how_good(files: RunFiles, results: Results) -> Card:
    if results.value is None:
        return Card("How good is it?", "Not known", ["No evaluation was finite." if files.state else "Not evaluated."])
    name = results.metric.replace("_", " ")
    kind = ROWS[results.split]
    low_high = f"95 % interval {shown(results.interval[0])} to {shown(results.interval[1])}" if results.interval else ""
    count = f"{results.rows:,} {kind} rows" if results.rows else f"{kind} data"
    direction = "lower is better" if lower_is_better(results.metric) else "higher is better"
    lines = [". ".join(filter(None, [f"On the {count}; {direction}", low_high])) + ".", _which_evaluation(files)]
    others = [f"{each.replace('_', ' ')} {shown(results.values[each])}" for each in _others(results)]
    answer = f"{kind} {name} {shown(results.value)}"
    return Card("How good is it?", answer, [*lines, *([", ".join(others).capitalize() + "."] if others else [])])


def _others(results: Results) -> list[str]:
    names = ("perplexity", "bits_per_byte", "f1_macro", "roc_auc", "r2", "loss")
    return [name for name in names if name in results.values and name != results.metric][:2]


def _which_evaluation(files: RunFiles) -> str:
    metrics, history = files.metrics, files.state["history"] if files.state else None
    best = metrics["best_step"] if metrics else history.best_step if history else 0
    last = metrics["steps"] if metrics else files.state["progress"].step if files.state else 0
    count = len(metrics.get("evaluations", [])) if metrics else len(history.evaluations) if history else 0
    return f"The best of {count} evaluations, step {best:,} of {last:,}." if best and count else ""


def _compared(files: RunFiles, results: Results) -> Card:
    question = "Compared with what?"
    reference = files.metrics["reference"] if files.metrics else {}
    lines = []
    if {"student", "teacher"} <= reference.keys():
        lines.append(_teacher_line(results, reference))
    sign = -1 if lower_is_better(results.metric) else 1
    ranked = sorted(results.baselines.items(), key=lambda item: -sign * item[1])
    for name, value in ranked[:_MAX_BASELINES]:
        label = UNIGRAM if name == "unigram" else name
        lines.append(f"{label}: {results.metric.replace('_', ' ')} {shown(value)}")
    if (first := first_evaluation(files)) is not None:
        objective = files.manifest.get("outcome", {}).get("objective", "objective")
        lines.append(f"Its first evaluation (step {first[0]:,}): {objective} {shown(first[1])}")
    if not lines:
        return Card(question, "Nothing", ["No baseline, teacher or earlier evaluation was measured."])
    answer = compared_with_best(results).replace("unigram", "token frequencies").replace("_", " ")
    return Card(question, answer or lines.pop(0), lines)


def _teacher_line(results: Results, reference: dict[str, dict[str, float | None]]) -> str:
    student, teacher = reference["student"], reference["teacher"]
    metric = results.metric if results.metric in teacher else "loss"
    sizes = student.get("parameters"), teacher.get("parameters")
    share = f", {sizes[0] / sizes[1]:.0%} of its size" if sizes[0] and sizes[1] else ""
    values = f"{shown(student.get(metric))}, the teacher {shown(teacher.get(metric))}"
    return f"Student {metric.replace('_', ' ')} {values}{share} (last step, validation data)"


def _trust(checks: Sequence[Check]) -> Card:
    question, count = "Can it be trusted?", len(checks)
    warnings = [check.title for check in checks if check.state == "warning"]
    unknown = [check.title for check in checks if check.state == "unknown"]
    lines = [f"Attention: {', '.join(warnings).lower()}."] if warnings else []
    lines += [f"Not known: {', '.join(unknown).lower()}."] if unknown else []
    lines.append(f"{count - len(warnings) - len(unknown)} of {count} checks hold; all of them are below.")
    answer = f"{len(warnings)} warning{'s' * (len(warnings) != 1)}" if warnings else "No warning"
    return Card(question, answer, lines)

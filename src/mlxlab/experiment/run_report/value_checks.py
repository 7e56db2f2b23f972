"""Checks of the values that a model reached: against baselines and its teacher, by class, and its calibration."""

from mlxlab.config.issues import one_line
from mlxlab.experiment.final_evaluation.findings import (
    has_learned_nothing,
    never_predicted_sentence,
    same_as_weakest,
)
from mlxlab.experiment.final_evaluation.verdict import best_baseline
from mlxlab.experiment.run_report.results import (
    ROWS,
    Results,
    baseline_title,
    compared_with_best,
    shown,
)
from mlxlab.experiment.run_report.run_files import RunFiles
from mlxlab.html.blocks import Check
from mlxlab.metric_names import lower_is_better, plain_name

_CALIBRATED, _MISCALIBRATED = 0.05, 0.1  # expected calibration error


def check_baselines(files: RunFiles, results: Results) -> Check | None:
    """Against the weakest baseline, which takes no training, and the best one."""
    if results.value is None:
        return None
    if not files.is_evaluated and files.is_labelled:
        way = "the end of the run computes them, and so does mlxlab evaluate"
        return Check(
            "unknown", "Baselines and classes", f"Not compared, without a final evaluation: {way}."
        )
    if not (text := compared_with_best(results)):
        return None
    if results.may_be_chance:
        weakest, value = baseline_title(results.weakest), results.baselines[results.weakest]
        same = same_as_weakest(results.metric, results.value, weakest, value)
        same = same[0].upper() + same[1:]
        if results.learned_nothing:
            return Check("warning", "Learned nothing", f"{same}.", is_serious=True)
        if results.is_no_better:
            sentences = f"{same}; {results.ranking}."
            return Check("warning", text, sentences, is_serious=results.is_clearly_worse)
        chance = f"the 95 % interval of the difference from {weakest} includes 0"
        return Check("warning", "May be chance", f"{text}: {chance}.")
    if text.startswith("Better"):
        return Check("good", "Baselines", f"{text}.")
    is_worse = text.startswith("Worse")
    meaning = f"{'worse' if is_worse else 'no better'} than a baseline"
    return Check("warning", "Baselines", f"{text}.", meaning, is_serious=is_worse)


def check_teacher(files: RunFiles, results: Results) -> Check | None:
    """Whether the student learns from a teacher that has learned something itself."""
    teacher = files.metrics.get("reference", {}).get("teacher", {}) if files.metrics else {}
    value = teacher.get(results.metric)
    if value is None or results.split != "valid" or not results.baselines:
        return None
    weakest = baseline_title(results.weakest)
    if has_learned_nothing(results.metric, value, results.baselines):
        same = same_as_weakest(results.metric, value, weakest, results.baselines[results.weakest])
        roc_auc = teacher.get("roc_auc")
        if roc_auc is not None and roc_auc > 0.5 and results.metric != "roc_auc":
            text = f"Its {same}; its ranking may carry information (ROC AUC {shown(roc_auc)})."
            return Check("warning", f"The teacher is no better than {results.weakest}", text)
        text = f"Its {same}: a student cannot learn more from it."
        return Check("warning", "The teacher learned nothing", text, is_serious=True)
    best = best_baseline(results.metric, results.baselines)
    its, reached = (
        f"Its {plain_name(results.metric)} {shown(value)}",
        shown(results.baselines[best]),
    )
    sign = -1 if lower_is_better(results.metric) else 1
    if sign * (value - results.baselines[best]) <= 0:
        text = f"{its} is better than {weakest}, but not than {baseline_title(best)}, {reached}."
        return Check("warning", "Teacher", text, f"a teacher no better than {baseline_title(best)}")
    return Check("good", "Teacher", f"{its} is better than {baseline_title(best)}, {reached}.")


def check_classes(files: RunFiles, results: Results) -> Check | None:
    """Whether each class that occurs is predicted at least once."""
    classes = files.metrics.get("never_predicted", {}).get(results.split) if files.metrics else None
    if classes is None or not results.rows:
        return None
    if not classes:
        if "accuracy" not in results.values:  # a regression
            return None
        return Check(
            "good", "Classes", f"Each class of the {ROWS[results.split]} rows is predicted."
        )
    text = never_predicted_sentence(
        {one_line(name, 60): rows for name, rows in classes.items()}, results.split, results.rows
    )
    meaning = (
        f"{'a class is' if len(classes) == 1 else f'{len(classes):,} classes are'} never predicted"
    )
    return Check("warning", "Classes", f"{text}.", meaning)


def check_bands(files: RunFiles, results: Results) -> Check | None:
    """Of a regression: whether it predicts more than two values."""
    bands = files.metrics.get("prediction_bands", {}).get(results.split) if files.metrics else None
    if bands is None:
        return None
    values = f"Most predictions are near {bands[0]:.4g} or {bands[1]:.4g}, the true values are not"
    text = f"{values}: the model tells two groups of rows apart and little else."
    return Check("warning", "Two values", text, "most predictions are near two values")


def check_calibration(results: Results) -> Check | None:
    error = results.values.get("calibration_error")
    if error is None:
        return None
    if not results.baselines:
        text = f"Expected calibration error {error:.3f}, which says little without a baseline."
        return Check("unknown", "Calibration", text)
    if results.may_be_chance:
        text = f"Expected calibration error {error:.3f}, which says little of a model no better than a constant."
        return Check("unknown", "Calibration", text)
    text = f"Confidence and accuracy differ by {error:.3f} on average (expected calibration error)."
    state = "good" if error <= _CALIBRATED else "warning" if error > _MISCALIBRATED else "unknown"
    names = {"good": "Calibrated", "warning": "Badly calibrated", "unknown": "Roughly calibrated"}
    return Check("good" if state == "unknown" else state, names[state], text)  # type: ignore[arg-type]

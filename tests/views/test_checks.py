"""The checks of a run: for each topic a run that fails it, and one that passes."""

from dataclasses import replace

import pytest

from mlxlab.record.run_record import Overlap, SplitResult, Verification
from mlxlab.views.checks import RULES, check
from mlxlab.views.render import phrase
from mlxlab.views.verdict import judge, judge_mean
from support.run_records import BEST, CONSTANT, attempt_of, make_record, view_of


def state_of(topic, *changes):
    """The state of a check after changes of the record; None if there is none."""
    record = make_record()
    for change in changes:
        change(record)
    states = {each.topic: each.state for each in check(view_of(record))}
    return states.get(topic)


def main_result(record):
    return record.evaluation.results[-1]


def set_metrics(**metrics):
    return lambda record: main_result(record).metrics.update(metrics)


def set_rows(rows):
    return lambda record: setattr(main_result(record), "rows", rows)


def set_gains(best, constant):
    return lambda record: main_result(record).gains.update({BEST: best, CONSTANT: constant})


def set_data(**fields):
    return lambda record: setattr(record, "data", replace(record.data, **fields))


def set_training(**fields):
    return lambda record: setattr(record, "training", replace(record.training, **fields))


def set_code(**fields):
    return lambda record: setattr(record, "code", replace(record.code, **fields))


def set_status(status, **fields):
    def change(record):
        record.status = status
        record.attempts.append(attempt_of(status, **fields))

    return change


def set_teacher(accuracy, roc_auc=0.5):
    metrics = {"accuracy": accuracy, "roc_auc": roc_auc}
    return lambda record: record.evaluation.models.update(student={}, teacher=metrics)


def verified(kind, step, difference=""):
    return lambda record: record.verifications.append(Verification(kind, step, difference))


def of_text(documents, tokens):
    return set_data(
        task="language_modelling", rows={"validation": documents}, tokens={"validation": tokens}
    )


def without_evaluation(record):
    record.is_evaluated = False


def with_test_rows(record):
    record.evaluation.results.append(SplitResult("test", 40, dict(main_result(record).metrics)))


RISING = [(1, {"valid/loss": 0.5}), (2, {"valid/loss": 0.6})]
CASES = [
    ("files", [], None),
    ("files", [lambda record: record.faults.append("run.lock: damaged")], "warning"),
    ("end", [], None),
    ("end", [set_status("failed", error="no space left")], "bad"),
    ("end", [set_status("killed")], "warning"),
    ("end", [set_training(nonfinite_steps=200)], "bad"),
    ("baselines", [set_gains((0.01, 0.1), (0.1, 0.2))], "good"),
    ("baselines", [], "warning"),
    ("baselines", [set_gains((-0.2, -0.1), (0.1, 0.2))], "bad"),
    ("baselines", [set_gains((-0.2, 0.1), (-0.1, 0.2))], "warning"),
    ("baselines", [set_metrics(accuracy=0.6), lambda r: main_result(r).intervals.clear()], "bad"),
    ("baselines", [set_metrics(accuracy=0.6), set_gains((-0.2, 0.1), (-0.1, 0.1))], "warning"),
    ("baselines", [set_metrics(accuracy=0.6), set_gains((-0.2, -0.1), (-0.1, 0.1))], "bad"),
    ("baselines", [without_evaluation], "unknown"),
    ("teacher", [set_teacher(0.8)], "good"),
    ("teacher", [set_teacher(0.7)], "warning"),
    ("teacher", [set_teacher(0.6)], "bad"),
    ("teacher", [set_teacher(0.6, roc_auc=0.7)], "warning"),
    ("control", [], None),
    ("control", [set_teacher(0.8)], "unknown"),
    ("classes", [], "good"),
    ("classes", [lambda record: main_result(record).never_predicted.update(died=3)], "warning"),
    ("test", [], "warning"),
    ("test", [with_test_rows], "good"),
    ("text size", [of_text(20, 20_000)], None),
    ("text size", [of_text(20, 9_000)], "warning"),
    ("text size", [of_text(9, 20_000)], "warning"),
    ("overlap", [], "good"),
    ("overlap", [set_data(overlaps=None)], "unknown"),
    ("overlap", [set_data(overlaps=[Overlap("3 rows", left_out=True)])], "good"),
    ("overlap", [set_data(overlaps=[Overlap("3 rows", left_out=False)])], "warning"),
    ("left out", [], None),
    ("left out", [set_data(left_out_rows=2)], "good"),
    ("length", [], "good"),
    ("length", [set_data(truncated_rows=44)], "good"),
    ("length", [set_data(truncated_rows=45)], "warning"),
    ("overfitting", [], "good"),
    ("overfitting", [set_training(curve=RISING)], "warning"),
    ("overfitting", [set_training(curve=RISING[:1])], None),
    ("calibration", [set_rows(200)], "good"),
    ("calibration", [set_rows(200), set_metrics(calibration_error=0.11)], "warning"),
    ("calibration", [set_rows(200), set_metrics(accuracy=0.6)], None),
    ("calibration", [set_rows(199), set_metrics(calibration_error=0.11)], None),
    ("steps", [], "good"),
    ("steps", [set_training(nonfinite_steps=1)], "warning"),
    ("steps", [set_training(rollbacks=1)], "warning"),
    ("warnings", [], None),
    ("warnings", [lambda record: record.attempts[0].warnings.append("disk")], "warning"),
    ("seeds", [], "unknown"),
    ("seeds", [lambda record: setattr(record, "seed", None)], None),
    ("code", [], "good"),
    ("code", [set_code(dirty=True)], "warning"),
    ("code", [set_code(dirty=None)], "unknown"),
    ("code", [set_code(commit="")], "unknown"),
    ("verified", [verified("verify", 200)], "good"),
    ("verified", [verified("verify", 100)], "unknown"),
    ("verified", [], "unknown"),
    ("verified", [verified("verify", 0, "weights differ")], "bad"),
    ("reproduced", [], None),
    ("reproduced", [verified("reproduce", 200)], "good"),
    ("reproduced", [verified("reproduce", 0, "numpy")], "warning"),
]


@pytest.mark.parametrize(("topic", "changes", "state"), CASES)
def test_each_check_fails_for_one_run_and_passes_for_another(topic, changes, state):
    assert state_of(topic, *changes) == state


def test_every_topic_and_every_state_of_it_has_a_case():
    covered = {(topic, state) for topic, _, state in CASES if state}
    assert covered == {(rule.topic, rule.state) for rule in RULES}


@pytest.mark.parametrize(
    ("value", "best", "constant", "verdict"),
    [
        (0.60, (-0.3, -0.1), (-0.1, 0.1), "learned nothing"),
        (0.65, (-0.3, -0.1), (-0.01, 0.1), "chance"),
        (0.70, (-0.2, -0.05), (0.02, 0.1), "worse"),
        (0.80, (-0.05, 0.06), (0.1, 0.2), "unclear"),
        (0.90, (0.05, 0.16), (0.1, 0.3), "better"),
    ],
)
def test_the_verdict_follows_from_the_intervals(value, best, constant, verdict):
    result = make_record().evaluation.results[0]
    result.metrics["accuracy"] = value
    result.intervals.clear()
    result.gains = {BEST: best, CONSTANT: constant}
    assert judge(result, "accuracy").verdict == verdict


def test_a_lower_error_is_better_and_without_baselines_nothing_is_known():
    result = SplitResult("valid", 9, {"rmse": 2.0}, baselines={"mean": {"rmse": 3.0}})
    assert judge(result, "rmse").verdict == "better"
    assert judge(result, "rmse").gain == 1.0
    assert judge(SplitResult("valid", 9, {"rmse": 2.0}), "rmse").verdict == "unknown"


def test_a_mean_is_worse_than_a_baseline_only_by_an_interval():
    baselines = {"majority": 0.6, "tfidf": 0.83}
    chance = judge_mean("accuracy", 0.82, baselines, {})
    assert (chance.verdict, chance.is_bad) == ("unclear", False)
    assert phrase("compared", chance) == "Not better than tfidf"
    assert judge_mean("accuracy", 0.82, baselines, {"tfidf": (-0.02, -0.001)}).verdict == "worse"
    assert judge_mean("accuracy", 0.6, baselines, {}).verdict == "learned nothing"

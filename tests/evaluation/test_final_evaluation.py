"""The evaluation at the end of a run: weights, intervals, baselines and thresholds, for every kind of labelled task."""

import csv
import io
import json

import mlx.core as mx
import numpy as np
import pytest
from sklearn.metrics import f1_score

from mlxlab.checkpoint.names import FOLDER, folder_name
from mlxlab.data.batch import Batch, Task
from mlxlab.evaluation.at_end import (
    EvaluationLimits,
    evaluate_at_end,
    forget_evaluation,
    write_files,
)
from mlxlab.evaluation.labelled_results import (
    add_predictions,
    compare_with_baselines,
    confusion,
    diagnose,
)
from mlxlab.models.baselines.predict import Baseline
from mlxlab.tracking.tracker import NoTracker
from mlxlab.training.checkpointer import Checkpointer
from mlxlab.training.evaluate import Evaluation, evaluate
from mlxlab.views.verdict import judge as judge_baselines
from support.models import (
    TASK,
    BagOfEmbeddings,
    FixedBatches,
    fit,
    make_run,
    make_trainer,
    weights_of,
)

TASKS = {
    "classification": Task("classification", 3, ("$a$", "=b", "_c \u4e2d")),
    "multi_label": Task("multi_label", 3, ("a", "b", "c")),
    "regression": Task("regression", 1, target_mean=100.0, target_deviation=20.0),
}


class LabelledData:
    """Random labelled examples, 60 to validate and 40 to test, with a constant baseline and one that knows."""

    def __init__(self, kind):
        self.task = TASKS[kind]
        rng = np.random.default_rng(0)
        self.tokens = rng.integers(0, 20, (100, 6)).astype(np.int32)
        self.targets = {
            "classification": rng.integers(0, 3, 100).astype(np.int32),
            "multi_label": rng.integers(0, 2, (100, 3)).astype(np.float32),
            "regression": rng.normal(size=100).astype(np.float32),
        }[kind]
        self.valid, self.test = self.batches(0, 60), self.batches(60, 100)

    def batches(self, first, end):
        weights, ids = np.ones_like(self.targets, dtype=np.float32), np.arange(100)
        weights[3] = 0  # an example without a label
        fields = (self.tokens, np.ones_like(self.tokens), self.targets, weights, ids)
        return [Batch(*(f[i : min(i + 7, end)] for f in fields)) for i in range(first, end, 7)]

    def baselines(self):
        truth = self.targets * 20.0 + 100.0
        if self.task.kind != "regression":
            truth = (
                np.eye(3)[self.targets]
                if self.task.kind == "classification"
                else 0.2 * self.targets + 0.1
            )
        constant = np.zeros_like(truth) + truth.mean(axis=0)
        pairs = (("constant", constant), ("oracle", truth))
        return [Baseline(name, values[:60], values[60:]) for name, values in pairs]

    def texts(self, ids):
        return [f"-text {i}" for i in ids]


@pytest.fixture(autouse=True)
def _baselines(monkeypatch):
    """The baselines of the data sets of this file."""
    name = "mlxlab.models.baselines.predict.predict_baselines"
    monkeypatch.setattr(name, lambda data: data.baselines())


class RecordingTracker(NoTracker):
    def __init__(self):
        self.metrics, self.artifacts = {}, []

    def log_metrics(self, step, metrics):
        self.metrics |= {(name, step): value for name, value in metrics.items()}

    def log_artifact(self, path, to=""):
        self.artifacts.append((path.name, to))


def evaluated(kind, tmp_path, max_batches=None):
    """(results, data, tracker, predictions) of a model that saved no checkpoint; its files are in `tmp_path`."""
    mx.random.seed(3)
    data, tracker = LabelledData(kind), RecordingTracker()
    run = make_run(BagOfEmbeddings(classes=3 if kind != "regression" else 1))
    run.state.progress.step = 4
    run.state.history.add_evaluation(4, {"valid/loss": 1.0}, "valid/loss")
    results = evaluate_at_end(
        run.state, data, tmp_path, "valid/loss", EvaluationLimits(max_batches)
    )
    (tmp_path / "inference").mkdir()
    write_files(results, data, tracker, tmp_path, 4)
    batches = (data.valid, data.test)
    return results, data, tracker, [evaluate(run.model, each, data.task) for each in batches]


def rows_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))


@pytest.mark.parametrize("kind", TASKS)
def test_the_final_evaluation_of_every_kind(kind, tmp_path):
    results, _, tracker, predictions = evaluated(kind, tmp_path)
    record = results.record
    main = record.main_metric
    written = record.keyed_metrics("test")
    assert [each.rows for each in record.results] == [59, 40], "one has no label"
    assert record.results[0].metrics == predictions[0].metrics
    assert tracker.metrics == {(name, 4): value for name, value in written.items()}
    baselines = record.results[-1].baselines
    assert {"constant", "oracle"} == baselines.keys()
    assert baselines["oracle"][main] == pytest.approx(0.0 if main == "rmse" else 1.0, abs=1e-4)
    for each in record.results:
        low, high = each.intervals[main]
        assert low < each.metrics[main] < high
    assert judge_baselines(record.results[-1], main).best == "oracle"
    shown = record.results[0].diagnostics
    assert bool(shown.predicted) == (kind == "regression")
    assert bool(shown.reliability) == (kind != "regression")
    assert bool(shown.confusion) == (kind == "classification")


def test_the_mistakes_are_sorted_and_have_their_texts(tmp_path, monkeypatch):
    location = lambda self, row: f"own.csv:{row + 2}"  # noqa: E731
    monkeypatch.setattr(LabelledData, "location", location, raising=False)
    results, _, _, (evaluation, _) = evaluated("classification", tmp_path)
    rows = rows_of(tmp_path / "mistakes.csv")
    probability = [float(row["probability"]) for row in rows]
    assert probability == sorted(probability, reverse=True)
    wrong = int((evaluation.outputs.argmax(axis=1) != evaluation.targets).sum())
    assert len(rows) == min(wrong, 50)
    names = ("$a$", "'=b", "_c \u4e2d")
    for row in rows:
        number = int(row["row"].removeprefix("own.csv:")) - 2
        position = evaluation.ids.tolist().index(number)
        assert row["text"] == f"'-text {number}", "not a formula of a spreadsheet"
        assert row["true"] == names[evaluation.targets[position]]
        assert row["predicted"] == names[evaluation.outputs[position].argmax()] != row["true"]
    classes = [[each.rows for each in result.classes] for result in results.record.results]
    assert [sum(rows) for rows in classes] == [59, 40]


def test_thresholds_are_chosen_on_the_validation_rows_and_used_on_the_test_rows(tmp_path):
    results, _, tracker, (valid, test) = evaluated("multi_label", tmp_path)
    on_valid, on_test = results.record.results
    thresholds = json.loads((tmp_path / "inference" / "thresholds.json").read_text())
    assert list(thresholds) == ["a", "b", "c"]
    assert ("thresholds.json", "config/inference") in tracker.artifacts
    chosen = np.array(list(thresholds.values()), np.float32)
    columns = zip(valid.targets.T, valid.outputs.T, strict=True)
    best = [max(f1_score(y, p >= t) for t in np.unique(p)) for y, p in columns]
    assert f1_score(valid.targets, valid.outputs >= chosen, average=None) == pytest.approx(best)
    expected = f1_score(test.targets, test.outputs >= chosen, average="macro")
    assert on_test.metrics["f1_macro"] == pytest.approx(expected)
    assert on_valid.metrics["f1_macro"] == pytest.approx(valid.metrics["f1_macro"])
    assert on_test.baselines["oracle"]["exact_match"] == 1.0, "its probabilities are below 0.5"


@pytest.mark.parametrize("positive", [0, 1])
def test_two_classes_have_a_threshold_where_f1_is_the_objective(tmp_path, positive):
    mx.random.seed(3)
    data = LabelledData("classification")
    data.task = Task("classification", 2, ("no", "yes"), positive_class=positive)
    data.targets = (data.targets == 0).astype(np.int32)
    data.valid, data.test = data.batches(0, 60), data.batches(60, 100)
    # Its F1 is 1 with a threshold between 0.3 and 0.45, and 0 with 0.5.
    truth = np.where(data.targets == positive, 0.45, 0.3)
    truth = np.stack([1 - truth, truth] if positive else [truth, 1 - truth], axis=1)
    data.baselines = lambda: [Baseline("shy", truth[:60], truth[60:])]
    run = make_run(BagOfEmbeddings(classes=2))
    run.state.history.add_evaluation(4, {"valid/f1": 1.0}, "valid/f1")
    plain, results = (
        evaluate_at_end(run.state, data, tmp_path, objective, EvaluationLimits())
        for objective in ("valid/accuracy", "valid/f1")
    )
    assert plain.thresholds == 0.5
    assert (plain.record.main_metric, results.record.main_metric) == ("accuracy", "f1")

    (tmp_path / "inference").mkdir()
    write_files(results, data, NoTracker(), tmp_path, 4)
    thresholds = json.loads((tmp_path / "inference" / "thresholds.json").read_text())
    assert list(thresholds) == [data.task.labels[positive]]
    (chosen,) = thresholds.values()

    def f1(evaluation, threshold):
        scores = evaluation.outputs[:, positive]
        return f1_score(evaluation.targets == positive, scores >= threshold)

    on_valid, on_test = results.record.results
    valid, test = (evaluate(run.model, each, data.task) for each in (data.valid, data.test))
    best, expected = f1(valid, chosen), f1(test, chosen)
    assert best == pytest.approx(max(f1(valid, each) for each in valid.outputs[:, positive]))
    assert on_valid.metrics["f1"] == plain.record.results[0].metrics["f1"] <= best
    assert on_test.metrics["f1"] == pytest.approx(expected)
    assert [each.baselines["shy"]["f1"] for each in results.record.results] == [0.0, 1.0]
    low, high = on_test.gains["shy"]
    assert low < expected - 1 < high < 0
    low, high = on_test.intervals["f1"]
    assert low < expected < high
    wrong = sum((valid.outputs[:, positive] >= chosen) != (valid.targets == positive))
    assert len(rows_of(tmp_path / "mistakes.csv")) == wrong


def test_the_limit_of_validation_batches_holds_for_model_and_baselines(tmp_path):
    results, *_ = evaluated("classification", tmp_path, max_batches=2)
    on_valid, on_test = results.record.results
    assert (on_valid.rows, on_test.rows) == (13, 40), "one of 14 has no label"
    assert on_valid.baselines["oracle"]["accuracy"] == 1.0


def test_a_signal_stops_the_final_evaluation(tmp_path):
    run, calls = make_run(BagOfEmbeddings(classes=3)), []
    run.state.progress.step = 4
    run.state.history.add_evaluation(4, {"valid/loss": 1.0}, "valid/loss")
    data = LabelledData("classification")

    def stop_in_the_test_rows():
        calls.append(0)
        return len(calls) > len(data.valid) + 1

    limits = EvaluationLimits()
    args = (run.state, data, tmp_path, "valid/loss", limits, stop_in_the_test_rows)
    assert evaluate_at_end(*args) is None
    assert len(calls) == len(data.valid) + 2


class TwoClasses:
    """The examples that `fit` validates on."""

    task, test, valid = TASK, (), FixedBatches()

    def baselines(self):
        return []

    def texts(self, ids):
        return []


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_the_best_checkpoint_is_evaluated_and_the_last_weights_come_back(
    tmp_path, ema_decay, caplog
):
    trainer = make_trainer(ema_decay=ema_decay, learning_rate=0.1, max_steps=12, eval_every=2)
    run = fit(trainer, checkpointer=Checkpointer(None, 9, False, folder=tmp_path))
    history, last = run.state.history, weights_of(run.model)
    history.best_step, history.best_metrics = next(
        (step, {name: value for name, value in metrics.items() if name.startswith("valid/")})
        for step, metrics in history.curve
        if (tmp_path / FOLDER / folder_name(step)).is_dir() and step < 12
    )
    results = evaluate_at_end(run.state, TwoClasses(), tmp_path, "valid/loss", EvaluationLimits())
    assert results.record.keyed_metrics("valid") == history.best_metrics
    assert "last step" not in caplog.text
    for name, leaf in weights_of(run.model).items():
        np.testing.assert_array_equal(leaf, last[name])

    (tmp_path / FOLDER / folder_name(history.best_step) / "model.safetensors").write_bytes(b"")
    results = evaluate_at_end(run.state, TwoClasses(), tmp_path, "valid/loss", EvaluationLimits())
    assert "the final evaluation is of the last step, 12" in caplog.text
    assert results.record.results[0].metrics["loss"] == history.curve[-1][1]["valid/loss"]


def judged(correct_model, correct_baseline):
    """The result on examples of class 1 of two, of which model and baseline get these right."""
    outputs = [
        np.stack([1.0 - right, right], axis=1) for right in (correct_model, correct_baseline)
    ]
    targets = np.ones(len(correct_model), np.int64)
    evaluation = Evaluation(
        {"loss": 0.0}, np.arange(len(targets)), np.arange(len(targets)), targets, outputs[0]
    )
    task = Task("classification", 2, ("a", "b"))
    baselines = {"rule": outputs[1]}
    result = compare_with_baselines(task, "accuracy", "valid", evaluation, baselines, {})
    add_predictions(result, task, evaluation, 0.5)
    return result


def verdict_of(result):
    """The verdict on a result by its accuracy."""
    return judge_baselines(result, "accuracy").verdict


def test_the_verdict_compares_on_the_same_rows():
    # Rows that both get wrong widen both intervals, not that of the difference.
    hard = np.arange(400) < 100
    better = ~hard & (np.arange(400) < 360)
    results = judged(better * 1.0, ~hard * 1.0)
    assert verdict_of(results) == "learned nothing", "the only baseline is better"
    low, high = results.gains["rule"]
    theory = 1.96 * np.sqrt(0.1 * 0.9 / 400)
    assert (low, high) == pytest.approx((-0.1 - theory, -0.1 + theory), abs=0.006)
    assert verdict_of(judged(~hard * 1.0, better * 1.0)) == "better"
    low, high = judged(~hard * 1.0, ~hard * 1.0).gains["rule"]
    assert (low, high) == pytest.approx((-0.0092, 0.0092), abs=1e-4)


@pytest.mark.parametrize(("rows", "is_significant"), [(2, False), (5, False), (6, True)])
def test_a_few_rows_are_no_evidence_where_all_resamples_are_equal(rows, is_significant):
    results = judged(np.zeros(rows), np.ones(rows))
    low, high = results.gains["rule"]
    assert low == -1
    assert (high < 0) == is_significant


def test_an_accuracy_of_1_has_an_interval_and_a_metric_that_needs_two_classes_has_none():
    results = judged(np.ones(262), np.zeros(262))
    assert results.intervals["accuracy"] == (pytest.approx(0.9860, abs=5e-5), 1.0)
    assert np.isnan(results.metrics["roc_auc"])
    assert "roc_auc" not in results.intervals


def test_confusions_of_many_classes_are_those_of_the_most_confused():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 300, 2000)
    guess = np.where(targets < 25, (targets + 1) % 25, targets)
    outputs = np.eye(300)[guess]
    evaluation = Evaluation({"loss": 0.0}, np.arange(2000), np.arange(2000), targets, outputs)
    task = Task("classification", 300, tuple(map(str, range(300))))
    names, counts = confusion(task, guess, targets)
    assert len(names) == len(counts) == 20
    assert {int(name) for name in names} <= set(range(25))
    shown = diagnose(task, evaluation, 0.5)
    assert sum(rows for _, _, rows in shown.reliability) == 2000


def test_a_run_that_is_trained_further_keeps_no_file_of_its_evaluation(tmp_path):
    evaluated("multi_label", tmp_path)
    others = [tmp_path / "run.json", tmp_path / "inference" / "config.yaml"]
    for path in (*others, tmp_path / "summary.md"):
        path.touch()
    forget_evaluation(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(others)

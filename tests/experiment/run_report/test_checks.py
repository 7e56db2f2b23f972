"""The checks of a report: is the model better than what takes no training? Do rows repeat, or are they cut off?"""

from dataclasses import replace
from pathlib import Path

import pytest

from mlxlab.checkpoint.state import History
from mlxlab.experiment.run_report.cards import baselines_card
from mlxlab.experiment.run_report.checks import (
    _held_out_text,
    _left_out,
    _overlap,
    _truncated,
    _warnings,
)
from mlxlab.experiment.run_report.curves import evaluation_table
from mlxlab.experiment.run_report.mistakes import _all_mistakes
from mlxlab.experiment.run_report.results import Results
from mlxlab.experiment.run_report.run_files import RunFiles
from mlxlab.experiment.run_report.sections import result_sections
from mlxlab.experiment.run_report.value_checks import (
    check_bands,
    check_baselines,
    check_calibration,
    check_classes,
    check_teacher,
)

VALUES = {"accuracy": 0.8, "calibration_error": 0.01}
RESULTS = Results(
    "accuracy",
    "valid",
    VALUES,
    None,
    100,
    {"majority": 0.6, "tfidf": 0.75},
    (0.01, 0.09),
    (0.1, 0.3),
)


@pytest.mark.parametrize(
    ("value", "gain", "state", "name", "text"),
    [
        (0.8, (0.01, 0.09), "good", "Baselines", "Better than tfidf by 0.0500."),
        (0.76, (-0.03, 0.05), "warning", "Baselines", "Not clearly better than tfidf."),
        (0.74, (-0.06, 0.04), "warning", "Baselines", "No clear difference from tfidf."),
        (0.65, (-0.2, -0.01), "warning", "Baselines", "Worse than tfidf by 0.1000."),
        (
            0.6,
            (-0.3, -0.01),
            "warning",
            "Learned nothing",
            "Accuracy 0.6000 is that of majority (the most frequent class).",
        ),
    ],
)
def test_a_model_is_compared_with_the_best_and_the_weakest_baseline(value, gain, state, name, text):
    check = check_baselines(files(), replace(RESULTS, values={"accuracy": value}, gain=gain))
    assert (check.state, check.title) == (state, name)
    assert check.text.startswith(text)


def test_a_model_that_is_no_better_than_the_majority_learned_nothing_also_where_a_fitted_baseline_is_worse():
    baselines = {"majority": 0.6, "gradient_boosting": 0.4}
    assert replace(RESULTS, values={"accuracy": 0.6}, baselines=baselines).learned_nothing


def test_a_model_that_decides_as_the_majority_and_ranks_better_has_learned_something():
    values = {"accuracy": 0.6, "roc_auc": 0.7}
    ranked = replace(RESULTS, values=values, roc_auc=(0.62, 0.77), gain=(-0.1, 0.1))
    assert (ranked.is_no_better, ranked.learned_nothing) == (True, False)
    check = check_baselines(files(), ranked)
    assert (check.title, check.is_serious) == ("No better than majority in accuracy", False)
    assert (
        "the ranking carries information (ROC AUC 0.7000, 95 % interval 0.6200 to 0.7700)."
        in check.text
    )
    card = baselines_card(ranked)
    assert (card.answer, card.tone) == ("No better than majority in accuracy", "warning")
    assert replace(ranked, roc_auc=(0.49, 0.77)).learned_nothing
    worse = replace(ranked, gain=(-0.26, -0.11))
    assert (check_baselines(files(), worse).is_serious, baselines_card(worse).tone) == (True, "bad")


def test_a_lead_on_the_weakest_baseline_may_be_chance():
    check = check_baselines(
        files(), replace(RESULTS, values={"accuracy": 0.62}, weakest_gain=(-0.05, 0.09))
    )
    assert (check.state, check.title) == ("warning", "May be chance")
    assert check.text.startswith("Not clearly better than majority: ")


def test_errors_are_better_when_lower_and_without_baselines_there_is_no_check():
    baselines = {"mean": 1.5, "ridge": 1.0}
    results = replace(
        RESULTS,
        metric="rmse",
        values={"rmse": 2.0},
        baselines=baselines,
        gain=None,
        weakest_gain=None,
    )
    assert check_baselines(files(), results).title == "Learned nothing"
    assert check_baselines(files(), replace(results, baselines={})) is None


def test_calibration_says_nothing_of_a_model_that_has_learned_nothing():
    assert check_calibration(RESULTS).state == "good"
    for changed in ({"values": VALUES | {"accuracy": 0.6}}, {"weakest_gain": (-0.1, 0.5)}):
        assert check_calibration(replace(RESULTS, **changed)).state == "unknown"


def files(**inputs):
    warnings = [
        "51 of 1,000 rows (5.1 %) are longer than data.seq_len=64 tokens; data.seq_len=96 holds 95 %",
        "hot",
    ]
    manifest = {"inputs": inputs, "attempts": [{"warnings": warnings}]}
    manifest["inputs"]["facts"] = {"batches_per_epoch": 8}
    config = {"data": {"seq_len": 64}, "trainer": {"epochs": 5}}
    metrics = {"steps": 40, "never_predicted": {"valid": {}, "test": {"satisfied": 6}}}
    metrics |= {"metrics": {}, "test": {}, "intervals": {}, "reference": {}}
    return RunFiles(Path("x"), manifest, "DONE", metrics=metrics, config=config)


@pytest.mark.parametrize(
    ("rows", "truncated", "state", "text"),
    [
        (
            1000,
            51,
            "warning",
            "51 of 1,000 rows (5.1 %) are longer than data.seq_len=64: the model does not read",
        ),
        (1000, 50, "good", "50 of 1,000 rows are longer than data.seq_len=64."),
        (1000, 0, "good", "No row is longer than data.seq_len=64."),
    ],
)
def test_many_rows_that_are_cut_off_are_a_warning(rows, truncated, state, text):
    check = _truncated(files(rows=rows, row_limit=64, truncated_rows=truncated))
    assert check.state == state
    assert check.text.startswith(text)
    assert ("data.seq_len=96 holds" in check.text) == (state == "warning")
    assert _truncated(files()) is None
    assert _warnings(files()).text == "hot"


def test_repeated_rows_are_named():
    lines = [
        "a.csv: 46 training rows with the same input as test rows, the first at a.csv:2",
        "a.csv: 10 validation rows with the same input as test rows, the first at a.csv:9",
    ]
    check = _overlap(files(messages=lines))
    assert check.state == "warning"
    assert check.text.startswith("; ".join(lines))
    left_out = [f"{line}; left out" for line in lines]
    check = _overlap(files(messages=left_out))
    assert (check.state, check.text) == ("good", f"{'; '.join(left_out)}.")


@pytest.mark.parametrize(
    ("value", "state", "is_serious", "text"),
    [
        (0.6, "warning", True, "a student cannot learn more from it."),
        (
            0.7,
            "warning",
            False,
            "better than majority (the most frequent class), but not than tfidf, 0.7500.",
        ),
        (0.8, "good", False, "Its accuracy 0.8000 is better than tfidf, 0.7500."),
    ],
)
def test_a_teacher_is_compared_with_the_weakest_and_the_best_baseline(
    value, state, is_serious, text
):
    distilled = files()
    distilled.metrics["reference"] = {"teacher": {"accuracy": value}}
    check = check_teacher(distilled, RESULTS)
    assert (check.state, check.is_serious) == (state, is_serious)
    assert check.text.endswith(text)


def test_a_teacher_that_only_ranks_is_no_serious_warning():
    assert check_teacher(files(), RESULTS) is None
    distilled = files()
    distilled.metrics["reference"] = {"teacher": {"accuracy": 0.6, "roc_auc": 0.7}}
    assert not check_teacher(distilled, RESULTS).is_serious


def test_classes_of_a_regression_are_not_checked():
    assert check_classes(files(), replace(RESULTS, metric="rmse", values={"rmse": 2.0})) is None


def test_predictions_near_two_values_are_a_warning():
    run = files()
    assert check_bands(run, RESULTS) is None
    run.metrics["prediction_bands"] = {"valid": (104.0, 204.5)}
    assert check_bands(run, RESULTS).text.startswith(
        "Most predictions are near 104 or 204.5, the true values"
    )


def test_a_class_that_is_never_predicted_is_a_warning():
    check = check_classes(files(), replace(RESULTS, split="test", rows=60))
    assert (check.state, check.text) == (
        "warning",
        "satisfied is never predicted (6 of 60 test rows).",
    )
    assert check_classes(files(), RESULTS).state == "good"


def test_only_a_model_that_is_worse_than_a_baseline_is_a_serious_warning():
    checks = [
        check_baselines(files(), replace(RESULTS, values={"accuracy": 0.7}, gain=gain))
        for gain in ((-1, 1), (-2, -1))
    ]
    assert [(each.meaning, each.is_serious) for each in checks] == [
        ("no better than a baseline", False),
        ("worse than a baseline", True),
    ]


def test_a_language_model_with_little_validation_text_is_a_warning():
    for documents, tokens, is_little in ((2, 3_587, True), (9, 20_000, True), (10, 10_000, False)):
        sized = files()
        sized.manifest["inputs"]["facts"] = {"text": {"validation": (documents, tokens)}}
        assert (_held_out_text(sized) is not None) == is_little
    assert _held_out_text(files()) is None


def test_an_evaluation_between_two_logged_losses_shows_the_last_one_with_its_step():
    valid = {"valid/loss": 0.5}
    history = History(evaluations=[(5, 0.5), (15, 0.5), (20, 0.5)], best_step=5)
    history.curve = [
        (5, valid),
        (10, {"train/loss": 0.7}),
        (15, valid),
        (20, valid | {"train/loss": 0.6}),
    ]
    table = evaluation_table(
        RunFiles(Path("x"), {"attempts": []}, "DONE", state={"history": history})
    )[0]
    assert [row[1] for row in table.rows] == ["", "0.7000\n(step 10)", "0.6000"]


def test_rows_that_are_left_out_are_counted_with_their_reason():
    line = "a.csv: 3 rows (1.0 %) left out: a.csv:7: column 'y': a row without a label (3 rows)"
    check = _left_out(files(messages=["a.csv: 300 rows", line], left_out_rows=3))
    assert (check.title, check.text) == (
        "Rows left out",
        f"{line}.",
    )
    assert _left_out(files(messages=[], left_out_rows=0)) is None


def mistakes(*rows, results=RESULTS):
    head = ["id", "text", "true", "predicted", "probability"]
    listed = [
        head,
        *([f"{number}", text, "a", "b", value] for number, (text, value) in enumerate(rows)),
    ]
    sections = result_sections(replace(files(), mistakes=listed), results)
    return next(each.blocks for each in sections if "mistakes" in each.title)


def test_mistakes_of_the_same_text_are_one_row_with_their_number():
    table, _ = mistakes(("x", "0.99"), ("y", "0.9"), ("x", "0.85"), ("", "0.8"), ("", "0.7"))
    assert [row[3:] for row in table.rows] == [
        ["x", "0", "2"],
        ["y", "1", "1"],
        ["", "3", "1"],
        ["", "4", "1"],
    ]
    assert mistakes(("x", "0.99"), ("y", "0.8"))[0].columns[-1].name == "id"


def test_the_row_of_a_mistake_is_shown_without_its_folder():
    listed = [
        ["row", "text", "true", "predicted", "probability"],
        ["/data/own.csv:17", "x", "a", "b", "0.9"],
    ]
    sections = result_sections(replace(files(), mistakes=listed), RESULTS)
    table, _ = next(each.blocks for each in sections if "mistakes" in each.title)
    assert table.rows == [["0.9", "a", "b", "x", "own.csv:17"]]


@pytest.mark.parametrize(
    ("task", "text"), [("classification", ", which lists 50 of 60 wrong rows"), ("regression", "")]
)
def test_the_number_of_all_mistakes_is_named_where_the_file_lists_a_part(task, text):
    facts = {"facts": {"task": task}}
    metrics = {"metrics": {"valid/accuracy": 0.4}, "rows": {"valid": 100}}
    run_files = RunFiles(Path("x"), {"inputs": facts, "attempts": []}, "DONE", metrics=metrics)
    assert _all_mistakes(run_files, 50) == text
    assert _all_mistakes(run_files, 60) == text.replace("50 of 60", "all 60")


def test_mistakes_whose_order_says_little_are_few():
    equal = [(f"text {number}", "1.0000") for number in range(12)]
    doubt, table, note = mistakes(*equal)
    assert doubt.text.endswith(
        "mistakes are about equally so (1.0000): their order says little, so that few are shown."
    )
    assert len(table.rows) == 3
    assert "; 9 more mistakes there" in note.text
    doubt, *_ = mistakes(*equal, results=replace(RESULTS, values={"accuracy": 0.6}))
    assert doubt.text.startswith("This model is not clearly better than majority")

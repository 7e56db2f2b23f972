"""What a report says of the model itself: its shape, and a student next to its teacher."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from mlxlab.checkpoint.state import History, Progress
from mlxlab.experiment.run_report.cards import all_cards
from mlxlab.experiment.run_report.checks import _overfitting
from mlxlab.experiment.run_report.details import detail_sections, use_commands
from mlxlab.experiment.run_report.results import (
    Results,
    baseline_sentence,
    compared_with_best,
    results_of,
)
from mlxlab.experiment.run_report.run_files import RunFiles
from mlxlab.experiment.run_report.sections import result_sections
from mlxlab.experiment.run_report.what_was_trained import training_card
from mlxlab.metric_names import plain_name

PRESET = {
    "_target_": "mlxlab.models.bert.Bert",
    "hidden_size": 128,
    "num_layers": 6,
    "num_heads": 4,
}


def files(**architecture):
    overrides = [
        "data=titanic",
        "trainer=distill",
        "trainer.teachers=[/runs/t]",
        "hydra.run.dir=/runs/a",
    ]
    inputs = {"overrides": overrides, "parents": [], "choices": {"model": "bert"}}
    manifest = {"name": "x", "id": "1", "inputs": inputs, "attempts": [], "outcome": {}}
    metrics = {
        "best_step": 4,
        "steps": 8,
        "main_metric": "accuracy",
        "metrics": {"valid/accuracy": 0.8},
    }
    metrics |= {"test": {}, "intervals": {}, "baselines": {}, "reference": {}}
    state = {
        "architecture": architecture or PRESET,
        "vocab_size": 30522,
        "history": History(),
        "progress": Progress(8),
    }
    config = {
        "model": PRESET | {"pretrained": None, "num_kv_heads": None},
        "data": {"tokenizer": {"path": None}},
    }
    return RunFiles(Path("/runs/a"), manifest, "DONE", metrics=metrics, config=config, state=state)


def section(sections, title):
    return next(each for each in sections if each.title == title).blocks


def test_the_shape_is_that_of_the_weights_and_what_it_replaces_of_the_config_is_named():
    loaded = files(**PRESET | {"hidden_size": 384, "num_heads": 12, "num_kv_heads": 12})
    assert (
        training_card(loaded).facts["Shape"]
        == "layers 6, hidden size 384, heads 12, vocabulary 30,522"
    )
    facts, listing = section(detail_sections(loaded), "Config")
    assert facts.facts["not used"].startswith("model.hidden_size=128, model.num_heads=4: ")
    assert "hidden_size: 384" in listing.text
    assert "not used" not in section(detail_sections(files()), "Config")[0].facts
    of_mlx_lm = files(config={"hidden_size": 64, "num_hidden_layers": 2})
    assert training_card(of_mlx_lm).facts["Shape"] == "layers 2, hidden size 64, vocabulary 30,522"


def test_a_student_is_compared_by_its_best_evaluation():
    distilled = files()
    student, teacher = (
        {"accuracy": value, "f1_macro": 0.7, "parameters": 9.0} for value in (0.75, 0.85)
    )
    distilled.metrics["reference"] = {"student": student | {"agreement": 0.9}, "teacher": teacher}
    results = results_of(distilled)
    compared = all_cards(distilled, results, [])[2]
    assert (
        compared.answer
        == "Student accuracy 0.8000 with 100 % of the teacher's parameters, the teacher 0.8500 (validation data)"
    )
    same = (
        "With its last weights the student predicts the class of the teacher for 90.0 % of the rows"
    )
    assert compared.lines[0] == same
    assert compared.lines[1].startswith("Not compared with a control")
    table, *_ = section(result_sections(distilled, results), "Teacher and student")
    assert table.rows[:2] == [
        ["accuracy", "0.8000", "0.8500"],
        ["F1, macro average", "0.7000", "0.7000"],
    ]


def test_a_language_model_is_said_to_be_judged_on_answers_and_how_much_its_baselines_counted():
    of_text = files()
    of_text.metrics["metrics"] = {"valid/loss": 2.0}
    of_text.metrics["counted_text"] = {"batches": 64, "tokens": 131072}
    for loss_on, expected in {
        "assistant": ["Only the answers have a loss: all metrics are of their tokens."],
        "completion": ["Only the last answers have a loss: all metrics are of their tokens."],
        "all": [],
    }.items():
        of_text.config["data"]["loss_on"] = loss_on
        blocks = section(result_sections(of_text, results_of(of_text)), "Results")
        notes = [block.text for block in blocks if block.kind == "paragraph" and block.is_note]
        counts = "Pairs and triples of tokens are those of the first 64 training batches (131,072 tokens)."
        assert notes == [*expected, counts]


def test_the_first_of_equal_evaluations_is_named_and_so_is_the_loss_of_its_weights():
    tied = files()
    tied.metrics |= {"best_step": 10, "steps": 40}
    tied.metrics["metrics"]["valid/loss"] = 0.6123
    tied.metrics["evaluations"] = [(10, 0.8), (20, 0.7), (30, 0.8), (40, 0.8)]
    line = "Weights of the best of 4 evaluations by valid/loss (the first of 3 that are equal), at step 10 of 40."
    assert line in all_cards(tied, results_of(tied), [])[1].lines
    curve = [
        (10, {"valid/loss": 0.6123, "train/loss": 0.6}),
        (40, {"valid/loss": 0.5, "train/loss": 0.4}),
    ]
    tied.state = {"history": SimpleNamespace(curve=curve)}
    check = _overfitting(tied)
    assert check.text.endswith(
        " The results are of the weights of step 10, with valid/loss 0.6123."
    )
    tied.metrics["best_step"] = 40
    assert "The results are of" not in _overfitting(tied).text


@pytest.mark.parametrize(
    ("losses", "state"), [((0.6, 0.5), "good"), ((0.5, 0.6), "warning"), ((0.5, 0.5), "good")]
)
def test_overfitting_is_judged_without_a_training_loss(losses, state):
    run = files()
    curve = [(step, {"valid/loss": loss}) for step, loss in enumerate(losses)]
    run.state = {"history": SimpleNamespace(curve=curve)}
    assert _overfitting(run).state == state


def test_sentences_name_metrics_and_baselines_as_the_tables_do():
    baselines = {"ridge_regression": 3.0, "mean": 9.0}
    results = Results("rmse", "valid", {"rmse": 2.0}, None, 88, baselines, (0.5, 1.5), (6.0, 8.0))
    assert (
        "better than ridge regression, the best baseline: RMSE 2.0000 against"
        in baseline_sentence(results)
    )
    of_text = Results(
        "bits_per_byte",
        "valid",
        {"bits_per_byte": 2.5},
        None,
        None,
        {"unigram": 3.5, "bigram": 2.0},
        None,
    )
    assert compared_with_best(of_text) == "Worse than bigram counts by 0.5000 bits per byte"
    assert plain_name("bits_per_byte") == "bits per byte"


def test_a_masked_language_model_is_not_said_to_generate_text():
    of_text = files()
    of_text.manifest["inputs"]["facts"] = {"task": "language_modelling"}
    assert [*use_commands(of_text)] == ["generate", "evaluate"]
    of_text.manifest["inputs"]["facts"]["masked"] = True
    assert [*use_commands(of_text)] == ["evaluate"]

"""The name that was probably meant."""

import pytest

from mlxlab.config.schema.validate import Validator
from mlxlab.config.suggest import key_suggestion, nearest, nearest_key


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("lr", "learning_rate"),
        ("lrr", "learning_rate"),
        ("epoch", "epochs"),
        ("learnig_rate", "learning_rate"),
        ("bs", "batch_size"),
        ("xyz", None),
        ("q", None),
        ("out", None),
        ("rows", "max_rows"),
    ],
)
def test_the_nearest_name_is_a_typing_error_or_an_abbreviation(typed, meant):
    keys = [
        "learning_rate",
        "log_every",
        "epochs",
        "batch_size",
        "label_smoothing",
        "dropout",
        "max_rows",
    ]
    assert nearest(typed, keys) == meant


@pytest.mark.parametrize(
    ("typed", "keys", "meant"),
    [
        ("label_column", ["target", "time_column", "columns"], "; did you mean data.target?"),
        ("target", ["label_column", "text_column"], "; did you mean data.label_column?"),
        ("text_column", ["target", "time_column", "columns"], "; did you mean data.columns?"),
        ("columns", ["label_column", "text_column"], "; did you mean data.text_column?"),
    ],
)
def test_a_key_of_another_data_set_has_the_name_of_the_same_meaning(typed, keys, meant):
    assert key_suggestion(typed, keys, "data", ["trainer._target_"]) == meant


def test_the_class_of_a_component_is_never_suggested():
    assert nearest_key("target", ["trainer._target_", "data._target_"]) is None


def test_a_value_of_another_library_is_answered_with_ours():
    (issue,) = Validator().node(
        {"targets": "all-linear"}, "mlxlab.models.options.LoRA", "model.adapter"
    )
    expected = "model.adapter.targets=null is all linear layers of attention and feed-forward"
    assert issue.message == f"expected a list: text or null, got all-linear; {expected}"

"""The name that was probably meant."""

import pytest

from mlxlab.config.suggest import nearest


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
    keys = ["learning_rate", "log_every", "epochs", "batch_size", "label_smoothing", "dropout", "max_rows"]
    assert nearest(typed, keys) == meant

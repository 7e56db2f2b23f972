"""The valid names closest to a misspelt one."""

import pytest

from mlxlab.cli.main import subcommands
from mlxlab.terminal.nearest import key_suggestion, nearest, no_such_folder


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("trian", "train"), ("reprot", "report"), ("repor", "report"), ("evalaute", "evaluate")],
)
def test_a_command_with_swapped_letters_is_recognized(typed, meant):
    assert nearest(typed, subcommands()) == meant


def test_the_nearest_name_is_a_typing_error_or_an_abbreviation():
    keys = ["learning_rate", "log_every", "epochs", "batch_size", "label_smoothing", "dropout"]
    typed = ["epoch", "learnig_rate", "xyz", "q", "out"]
    expected = ["epochs", "learning_rate", None, None, None]
    assert [nearest(name, keys) for name in typed] == expected


KEYS = ["trainer.learning_rate", "trainer.optimizer.betas", "data.batch_size", "data.prefetch"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("lr", "trainer.learning_rate"),
        ("per_device_train_batch_size", "data.batch_size"),
        ("num_workers", "data.prefetch"),
        ("optimizer", "trainer/optimizer"),
        ("betas", "trainer.optimizer.betas"),
        ("num_heds", "model.num_heads"),
    ],
)
def test_a_key_of_another_library_or_node_and_a_near_one_of_the_same_node_is_meant(typed, meant):
    keys = ["num_layers", "num_heads"]
    assert key_suggestion(typed, keys, "model", KEYS) == f"; did you mean {meant}?"


@pytest.mark.parametrize("typed", ["device", "verbose", "learnin_rate"])
def test_a_key_that_is_like_none_of_its_node_lists_those_of_the_node(typed):
    message = key_suggestion(typed, ["num_layers", "num_heads"], "model", KEYS)
    assert message == "; there is num_heads, num_layers"


def test_a_folder_that_does_not_exist_suggests_the_nearest_one(tmp_path):
    (tmp_path / "tickets").mkdir()
    (tmp_path / "tuned.gguf").touch()
    for name, message in (
        ("ticket", f"no such folder; did you mean {tmp_path}/tickets?"),
        ("x", "no such folder; expected a run folder"),
        ("tuned.gguf", "a file, expected a run folder"),
    ):
        assert no_such_folder(tmp_path / name, "a run folder") == f"{tmp_path}/{name}: {message}"

"""The valid names closest to a misspelt one."""

import pytest

from mlxlab.cli.main import subcommands
from mlxlab.nearest import distance, nearest_names, no_such_file, no_such_folder


@pytest.mark.parametrize(
    ("first", "second", "edits"),
    [
        ("", "abc", 3),
        ("train", "train", 0),
        ("trian", "train", 1),
        ("trian", "trial", 1),
        ("kitten", "sitting", 3),
    ],
)
def test_swapped_letters_are_one_edit(first, second, edits):
    assert distance(first, second) == distance(second, first) == edits


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("trian", "train"), ("trail", "trial"), ("tria", "trial"), ("evalaute", "evaluate")],
)
def test_a_command_with_swapped_letters_is_recognized(typed, meant):
    assert nearest_names(typed, subcommands()) == [meant]


def test_the_closest_come_first_and_others_not_at_all():
    assert nearest_names("lsos", ["losses", "xyz", "loss"], 3) == ["loss", "losses"]
    assert nearest_names("q", ["loss"]) == []


def test_a_folder_that_does_not_exist_suggests_the_nearest_one(tmp_path):
    (tmp_path / "tickets").mkdir()
    message = no_such_folder(tmp_path / "ticket", "a run folder")
    assert message == f"{tmp_path}/ticket: no such folder; did you mean {tmp_path}/tickets?"
    assert no_such_folder(tmp_path / "x", "a run folder").endswith(
        "x: no such folder; expected a run folder"
    )


def test_a_file_in_place_of_a_folder_is_named_as_one(tmp_path):
    (tmp_path / "tuned.gguf").touch()
    message = no_such_folder(tmp_path / "tuned.gguf", "a run folder")
    assert message == f"{tmp_path}/tuned.gguf: a file, expected a run folder"
    (tmp_path / "tuned").mkdir()
    message = no_such_folder(tmp_path / "tuned.gguf", "a run folder")
    assert (
        message
        == f"{tmp_path}/tuned.gguf: a file, expected a run folder; did you mean {tmp_path}/tuned?"
    )
    (tmp_path / "smollm2.gguf").touch()
    message = no_such_folder(tmp_path / "smolm2", "a run folder", suffix=".gguf")
    assert message.endswith(f"no such folder; did you mean {tmp_path}/smollm2.gguf?")


def test_a_misspelt_folder_above_is_suggested_with_what_is_in_it(tmp_path):
    (tmp_path / "outputs" / "first").mkdir(parents=True)
    for typed, near in (
        ("output/first", "outputs/first"),
        ("output/x", "outputs"),
        ("outputs/frist/a", "outputs/first"),
    ):
        assert no_such_folder(tmp_path / typed, "").endswith(
            f"no such folder; did you mean {tmp_path}/{near}?"
        )


def test_a_file_that_does_not_exist_suggests_the_nearest_one_and_no_folder(tmp_path):
    (tmp_path / "smollm2.gguf").touch()
    (tmp_path / "smolm2.ggu").mkdir()
    message = no_such_file(tmp_path / "smolm2.gguf", "model.pretrained=smolm2.gguf", "a GGUF file")
    assert (
        message
        == f"model.pretrained=smolm2.gguf: no such file; did you mean {tmp_path}/smollm2.gguf?"
    )

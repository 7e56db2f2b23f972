"""`info presets`: exact figures, the README's among them."""

from pathlib import Path

from mlxlab.commands.info import count, main, table

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_readme_table_is_what_the_command_prints():
    assert table(16_000, 2) in README.read_text()


def test_counts_are_those_of_the_literature():
    assert count("bert", "medium", "classification", 30_522, 2) == 109_482_240 + 2 * 769  # BERT-base and a classifier
    assert count("transformer", "nano", "language_modelling", 16_000, 2) == 3_622_528


def test_a_wrong_word_gets_the_nearest_one(capsys):
    assert main(["preset"]) == 2
    assert "presets" in capsys.readouterr().err
    assert main(["presets", "vocab=3"]) == 2
    assert "vocab_size" in capsys.readouterr().err

"""`evaluate`: the figures of a run again, and those on other data, with the run's own tokenizer."""

import math
import re
import shutil

import pytest

from mlxlab.cli.evaluate import main
from mlxlab.data.tokenizers.bpe import train_bpe
from support.processes import run, tiny_overrides
from support.titanic import real_rows

TEXTS = [f"{row.name} embarked at {row.embarked}, ticket {row.ticket}" for row in real_rows()]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a text, and the runs `language` and `titanic`."""
    path = tmp_path_factory.mktemp("evaluate")
    (path / "text.txt").write_text("\n".join(TEXTS[:800]) + "\n")
    (path / "other.txt").write_text("\n".join(TEXTS[800:]) + "\n")
    settings = tiny_overrides("trainer.max_steps=6", "trainer.eval_every=3")
    text = [
        "data=streaming",
        "model=transformer",
        f"data.source={path / 'text.txt'}",
        "data.reading.document_unit=line",
    ]
    text += [
        "data.seq_len=32",
        "data.tokenizer.vocab_size=300",
        "data.validation.fraction=0.1",
        "data.select.mode=null",
    ]
    for name, words in (("language", text), ("titanic", [])):
        done = run(*settings, *words, f"hydra.run.dir={path / name}")
        assert done.returncode == 0, done.stderr
    return path


def figures(capsys, *words):
    """The metrics that `evaluate` prints."""
    assert main([str(word) for word in words]) == 0
    return {
        name: float(value) for name, value in re.findall(r"^\| (\w+) +\| +([\d.]+) \|", capsys.readouterr().out, re.M)
    }


@pytest.mark.parametrize("name", ["language", "titanic"])
def test_without_a_source_it_is_what_the_run_reported(place, name, capsys):
    found = figures(capsys, f"run={place / name}")
    summary = (place / name / "summary.md").read_text()
    assert "loss" in found
    for metric, value in found.items():
        assert re.search(rf"\| {metric} +\| +{value:.4f} \|", summary), metric


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("titanic", "data.max_length=8000"),
        ("titanic", "data.batch_size=4"),
        ("titanic", "data.seq_len=8000"),
        ("language", "data.batch_size=4"),
        ("language", "data.prefetch=1"),
    ],
)
def test_a_key_of_the_data_without_effect_is_refused(place, name, word, capsys):
    assert main([f"run={place / name}", word]) == 2
    err = capsys.readouterr().err
    assert err.startswith(word.partition("=")[0])
    assert "has no effect" in err or "unknown key" in err


def test_a_source_is_judged_whole_with_the_tokenizer_of_the_run(place, capsys):
    found = figures(capsys, f"run={place / 'language'}", f"data.source={place / 'other.txt'}")
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]), rel=1e-3)
    again = figures(capsys, f"run={place / 'language'}", f"data.source={place / 'other.txt'}", "data.eval_batch_size=3")
    assert again == pytest.approx(found, abs=2e-4)
    fewer = figures(capsys, f"run={place / 'language'}", f"data.source={place / 'other.txt'}", "max_batches=1")
    assert fewer != found
    last = figures(capsys, f"run={place / 'language'}", f"data.source={place / 'other.txt'}", "checkpoint=last")
    assert last.keys() == found.keys() == {"loss", "perplexity", "bits_per_byte"}


def test_bits_per_byte_are_the_loss_in_bits_over_the_bytes_read(place, capsys):
    """By hand, of one short document: what the targets are is known."""
    from mlxlab.data.tokenizers.tokenizer import load_tokenizer

    (place / "one.txt").write_text("embarked at\n")
    tokens = load_tokenizer(place / "language" / "inference").encode("embarked at", special=False)
    found = figures(capsys, f"run={place / 'language'}", f"data.source={place / 'one.txt'}")
    # Each token but the first is a target, and so is the end, which has no bytes.
    total = found["loss"] * len(tokens)
    first = len(load_tokenizer(place / "language" / "inference").decode(tokens[:1]))
    assert found["bits_per_byte"] == pytest.approx(total / math.log(2) / (len("embarked at") - first), rel=1e-3)


def test_a_classifier_is_judged_on_a_table(place, capsys):
    rows = [row for row in real_rows()[:50] if '"' not in row.name]
    lines = ["PassengerId,Survived,Pclass,Name,Sex,Age,SibSp,Parch,Ticket,Fare,Cabin,Embarked"]
    lines += [
        f'{row.id},{row.survived},{row.pclass},"{row.name}",{row.sex},30,0,0,x,8,,S'
        for row in rows
        if '"' not in row.name
    ]
    (place / "rows.csv").write_text("\n".join(lines) + "\n")
    found = figures(capsys, f"run={place / 'titanic'}", f"data.source={place / 'rows.csv'}")
    assert found.keys() == {"loss", "accuracy", "precision", "recall", "f1", "roc_auc"}


def test_a_classifier_is_evaluated_on_the_test_rows_of_the_titanic(place, capsys):
    assert main([f"run={place / 'titanic'}", "data.source=test"]) == 0
    assert "418 rows of test; step" in capsys.readouterr().err


def test_faults_are_one_line_and_a_documented_code(place, capsys):
    train_bpe(TEXTS, 301, 2).save(place)
    language, titanic = f"run={place / 'language'}", f"run={place / 'titanic'}"
    (place / "empty.txt").write_text("")
    faults = [
        (["data.source=x.txt"], 2),
        ([f"run={place}"], 66),
        ([language, "checkpoint=nowhere"], 66),
        ([language, "checkpnt=best"], 2),
        ([language, "max_batches=0"], 2),
        ([language, "data.sorce=x.txt"], 2),
        ([language, "data.seq_len=many"], 2),
        ([language, "data.source=missing.txt"], 66),
        ([language, f"data.source={place / 'empty.txt'}"], 65),
        ([language, f"data.tokenizer.path={place}"], 77),
        ([titanic, f"data.source={place / 'text.txt'}"], 65),
    ]
    for words, code in faults:
        assert main(words) == code, words
        out, err = capsys.readouterr()
        assert not out
        assert len([line for line in err.splitlines() if "; step " not in line]) == 1, (words, err)


def test_neither_evaluation_nor_resume_go_on_with_another_tokenizer(place, capsys):
    folder = place / "swapped"
    shutil.copytree(place / "language", folder, symlinks=True)
    train_bpe(TEXTS[:100], 300, 3).save(folder / "inference")
    assert main([f"run={folder}"]) == 77
    assert "tokenizer" in capsys.readouterr().err
    resumed = run(f"hydra.run.dir={folder}", "resume=auto", "trainer.max_steps=8", "tracking=none")
    assert resumed.returncode == 77
    assert "the tokenizer changed since the save" in resumed.stderr.splitlines()[-1]


def test_help_says_what_it_takes(capsys):
    assert main(["--help"]) == 0
    assert "data.source" in capsys.readouterr().out

"""`evaluate`: the metrics that a run reported, and those on other data, with the tokenizer of the run."""

import json
import math
import re
import shutil

import pytest

from mlxlab.data.tokenizers.bpe import train_bpe
from mlxlab.data.tokenizers.tokenizer import load_tokenizer
from mlxlab.record.run_file import read_run
from mlxlab.views.numbers import number, title
from support.commands import command
from support.processes import run_here, succeed_here, tiny_overrides
from support.titanic import csv_text, real_rows

main = command("evaluate")

TEXTS = [f"{row.name} embarked at {row.embarked}, ticket {row.ticket}" for row in real_rows()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a text, and the runs `language` and `titanic`."""
    path = tmp_path_factory.mktemp("evaluate")
    (path / "text.txt").write_text("\n".join(TEXTS[:800]) + "\n")
    (path / "other.txt").write_text("\n".join(TEXTS[800:]) + "\n")
    settings = tiny_overrides("trainer.max_steps=6", "trainer.eval_every=3")
    settings.remove("data.baselines=false")  # not a key of texts
    overrides = ["data=streaming", "model=transformer", f"data.source={path / 'text.txt'}"]
    overrides += ["data.reading.document_unit=line", "data.seq_len=32", "data.select.mode=null"]
    overrides += ["data.tokenizer.vocab_size=300", "data.valid_fraction=0.1"]
    for name, own in (("language", overrides), ("titanic", [])):
        succeed_here(*settings, *own, f"hydra.run.dir={path / name}")
    return path


def evaluate(capsys, *args):
    """The metrics that `evaluate` prints, in its first table, by name without unit."""
    assert main([str(arg) for arg in args]) == 0
    table = capsys.readouterr().out.partition("\n\n")[0]
    rows = re.findall(r"^\| (\w[^|]*?) +\| +([\d.]+) \|", table, re.M)
    return {name.partition(" (")[0]: float(value) for name, value in rows}


@pytest.mark.parametrize("name", ["language", "titanic"])
def test_without_a_source_the_metrics_are_those_that_the_run_reported(runs, name, capsys):
    metrics = evaluate(capsys, f"run={runs / name}")
    summary = (runs / name / "summary.md").read_text()
    assert "loss" in metrics
    assert main([f"run={runs / name}", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [*printed["metrics"].values()] == pytest.approx([*metrics.values()], rel=1e-4, abs=1e-4)
    [reported] = read_run(runs / name).evaluation.results
    intervals = {metric: tuple(values) for metric, values in printed["intervals"].items()}
    assert intervals == (reported.intervals if name == "titanic" else {})
    assert ("majority" in printed["baselines"]) == (name == "titanic")
    for method, values in printed["baselines"].items():
        assert reported.baselines[method]["accuracy"] == values["accuracy"]
    for metric, value in metrics.items():
        row = rf"\| {re.escape(title(metric))}[^|]* \| +{number(value)} \|"
        assert re.search(row, summary), metric


def test_a_key_of_the_data_without_effect_is_refused(runs, capsys):
    for name, key in (("titanic", "seq_len"), ("titanic", "batch_size"), ("language", "prefetch")):
        assert main([f"run={runs / name}", f"data.{key}=8"]) == 2
        assert capsys.readouterr().err.startswith(f"data.{key}=8: has no effect")


def test_a_pretrained_model_that_cannot_be_compared_is_one_line(runs, tmp_path, capsys):
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "config.json").write_text("{}")
    train_bpe(["another text"] * 3, 260, 1).save(tmp_path / "published")
    for args, code, message in [
        ([f"run={tmp_path}/published"], 2, "expected data.source=FILE"),
        ([f"run={runs}/titanic", "pretrained=x.gguf"], 2, "predicts the next token of texts"),
        ([f"run={runs}/language", "pretrained=x.gguf"], 66, "pretrained=x.gguf: "),
        ([f"run={runs}/language", f"pretrained={tmp_path}/published"], 65, "its tokenizer is not"),
    ]:
        assert main(args) == code
        error = capsys.readouterr().err
        assert (message in error, len(error.splitlines())) == (True, 1), error


def test_a_source_is_evaluated_completely_with_the_tokenizer_of_the_run(runs, capsys):
    args = [f"run={runs / 'language'}", f"data.source={runs / 'other.txt'}"]
    metrics = evaluate(capsys, *args)
    assert metrics["perplexity"] == pytest.approx(math.exp(metrics["loss"]), rel=1e-3)
    again = evaluate(capsys, *args, "data.eval_batch_size=3")
    assert again == pytest.approx(metrics, abs=2e-4)
    assert evaluate(capsys, *args, "max_batches=1") != metrics
    last = evaluate(capsys, *args, "checkpoint=last")
    assert last.keys() == metrics.keys() == {"loss", "perplexity", "bits per byte"}


def test_bits_per_byte_are_the_loss_in_bits_over_the_bytes_read(runs, capsys):
    """Calculated for one short document, whose targets are known."""
    (runs / "one.txt").write_text("embarked at\n")
    tokens = load_tokenizer(runs / "language" / "inference").encode("embarked at", special=False)
    metrics = evaluate(capsys, f"run={runs / 'language'}", f"data.source={runs / 'one.txt'}")
    # Each token but the first is a target, and so is the end, which has no bytes.
    total = metrics["loss"] * len(tokens)
    first = len(load_tokenizer(runs / "language" / "inference").decode(tokens[:1]))
    expected = total / math.log(2) / (len("embarked at") - first)
    assert metrics["bits per byte"] == pytest.approx(expected, rel=1e-3)


def test_rows_that_the_model_was_trained_on_are_counted(runs, capsys):
    (runs / "all.csv").write_text(csv_text(real_rows()))
    assert main([f"run={runs / 'titanic'}", f"data.source={runs / 'all.csv'}"]) == 0
    [line] = [line for line in capsys.readouterr().err.splitlines() if "training row" in line]
    assert f"713 of the 1,309 rows of {runs}/all.csv equal a training row" in line

    others = [row._replace(survived=1 - row.survived) for row in real_rows()]
    (runs / "all.csv").write_text(csv_text(others))
    assert main([f"run={runs / 'titanic'}", f"data.source={runs / 'all.csv'}"]) == 0
    assert "training row" not in capsys.readouterr().err


def test_an_error_is_one_line_and_its_exit_code(runs, capsys):
    train_bpe(TEXTS, 301, 2).save(runs)
    language, titanic = f"run={runs / 'language'}", f"run={runs / 'titanic'}"
    (runs / "empty.txt").write_text("")
    shutil.copy(runs / "text.txt", runs / "text.csv")
    cases = [
        (["data.source=x.txt"], 2),
        ([f"run={runs}"], 66),
        ([language, "checkpoint=nowhere"], 66),
        ([language, "data.sorce=x.txt"], 2),
        ([language, "data.seq_len=many"], 2),
        ([language, "data.source=missing.txt"], 66),
        ([language, f"data.source={runs / 'empty.txt'}"], 65),
        ([language, f"data.tokenizer.path={runs}"], 77),
        ([titanic, f"data.source={runs / 'text.txt'}"], 65),
        ([titanic, f"data.source={runs / 'text.csv'}"], 65),
    ]
    for args, code in cases:
        assert main(args) == code, args
        out, err = capsys.readouterr()
        assert not out
        assert len([line for line in err.splitlines() if "; step " not in line]) == 1, (args, err)


def test_evaluation_and_resume_refuse_another_tokenizer(runs, capsys):
    folder = runs / "swapped"
    shutil.copytree(runs / "language", folder, symlinks=True)
    train_bpe(TEXTS[:100], 300, 3).save(folder / "inference")
    assert main([f"run={folder}"]) == 77
    assert "tokenizer" in capsys.readouterr().err
    resume = [f"hydra.run.dir={folder}", "resume=auto", "trainer.max_steps=8", "tracking=none"]
    resumed = run_here(*resume)
    assert resumed.returncode == 77
    assert "the tokenizer changed since the save" in resumed.stderr.splitlines()[-1]

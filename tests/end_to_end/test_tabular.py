"""`model=tabular` on a table of numbers, categories, dates and missing cells: from a file to predictions."""

import csv
import itertools
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from mlxlab import compose, load, train
from mlxlab.errors import ConfigError, DataError, InputNotFoundError
from mlxlab.inference.restore import restore_model
from mlxlab.models.baselines.mixture import load_out_of_fold, save_out_of_fold
from mlxlab.models.pretrained.load import PACKAGES, resolve
from mlxlab.record.run_file import read_run
from mlxlab.training.callback import Callback
from support.commands import command
from support.processes import final_state, killed_and_resumed, run_here, succeed_here

evaluate = command("evaluate")
predict = command("predict")

SETTINGS = ["data=table", "data.target=label", "model.hidden_size=16", "trainer.max_steps=40"]
SETTINGS += ["trainer.eval_every=10", "checkpointing.every_steps=5", "data.batch_size=50"]
SETTINGS += ["tracking=none", "~callbacks.report"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("source") / "rows.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["width", "color", "day", "constant", "label"])
        for number in range(200):
            width = rng.normal()
            color = ["red", "blue", "green"][number % 3]
            is_good = width + (color == "red") + rng.normal() / 5 > 0.3
            cells = [f"{width:.3f}" if number % 9 else "", color, f"2024-{1 + number % 12:02}-05"]
            cells += [7]
            writer.writerow([*cells, "good" if is_good else "bad"])
    return path


@pytest.fixture(scope="module")
def trained(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    done = succeed_here(*SETTINGS, f"data.source={source}", f"hydra.run.dir={folder}")
    return folder, final_state(done)


def read_results(folder):
    return {result.split: result for result in read_run(folder).evaluation.results}


def test_the_mixture_is_what_is_saved_evaluated_and_better_than_the_majority(trained):
    head = restore_model(trained[0]).model.head
    shares = np.array(head.shares)
    assert (shares > 0).all()
    np.testing.assert_allclose(shares.sum(), 1, rtol=1e-6)
    snapshots = [np.array(each.out) for each in (*head.snapshots, head.network)]
    assert not any(np.array_equal(a, b) for a, b in itertools.pairwise(snapshots))
    results = read_results(trained[0])
    assert results["valid"].metrics["accuracy"] > 0.85
    assert results["out_of_fold"].metrics["accuracy"] > 0.85
    rows = {split: result.rows for split, result in results.items()}
    assert rows == {"valid": 40, "out_of_fold": 160}


def test_what_is_said_of_training_rows_out_of_fold_did_not_learn_from_them(tmp_path):
    rng = np.random.default_rng(0)
    words = "abcdefghijklmnopqrst"
    with (tmp_path / "coins.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["width", "words", "label"])
        for _ in range(250):
            text = " ".join("".join(rng.choice(list(words), 4)) for _ in range(6))
            writer.writerow([rng.normal(), text, ["head", "tail"][rng.integers(2)]])
    source = f"data.source={tmp_path}/coins.csv"
    succeed_here(*SETTINGS, source, f"hydra.run.dir={tmp_path}/run")
    results = read_results(tmp_path / "run")
    accuracy = results["out_of_fold"].metrics["accuracy"]
    assert 0.4 < accuracy < 0.6
    assert all("accuracy" in result.intervals for result in results.values())
    with (tmp_path / "run" / "mistakes.csv").open(newline="") as file:
        mistakes = list(csv.DictReader(file))
    said = load_out_of_fold(tmp_path / "run", 2, 200)
    wrong = said.outputs.argmax(axis=1) != said.targets
    assert wrong.mean() == pytest.approx(1 - accuracy)
    lines = {f"{tmp_path}/coins.csv:{number + 2}" for number in said.ids[wrong].tolist()}
    assert len(lines & {row["row"] for row in mistakes}) > 20

    for change in ({"targets": said.targets + 2}, {"ids": said.ids[:, None]}):
        save_out_of_fold(tmp_path, said._replace(**change))
        with pytest.raises(DataError, match="2 numbers"):
            load_out_of_fold(tmp_path, 2, 200)

    path = tmp_path / "run" / "out_of_fold.safetensors"
    with pytest.raises(DataError, match="3 numbers"):
        load_out_of_fold(tmp_path / "run", 3, 200)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match="out_of_fold"):
        load_out_of_fold(tmp_path / "run", 2, 200)


@pytest.mark.parametrize("step", [5, pytest.param(35, marks=pytest.mark.slow)])
def test_a_killed_run_ends_as_if_it_had_not_been_killed(trained, source, tmp_path, step):
    assert killed_and_resumed([*SETTINGS, f"data.source={source}"], tmp_path, step) == trained[1]
    said, expected = (read_results(each)["out_of_fold"].metrics for each in (tmp_path, trained[0]))
    assert said == expected


def test_a_run_that_has_ended_is_not_prolonged(trained):
    done = run_here(f"resume={trained[0]}", "trainer.max_steps=60", "trust_folder=true")
    assert done.returncode == 2
    assert "train a new run" in done.stderr
    assert restore_model(trained[0]).checkpoint.step == 40


def test_rows_of_the_file_are_predicted_with_unseen_categories_and_missing_cells(
    trained, tmp_path, capsys
):
    rows = tmp_path / "new.csv"
    rows.write_text("width,color,day\n3,red,2024-05-01\n-3,blue,\n,violet,2030-01-01\n")
    out = tmp_path / "out.csv"
    assert predict([f"run={trained[0]}", f"input={rows}", f"output={out}"]) == 0
    with out.open(newline="") as file:
        answers = list(csv.DictReader(file))
    assert [answer["label"] for answer in answers[:2]] == ["good", "bad"]
    assert all(0 < float(answer["probability_good"]) < 1 for answer in answers)
    assert "violet" in capsys.readouterr().err


def test_data_without_columns_are_refused_in_one_line(tmp_path):
    chosen = ["model=tabular", "data=titanic", "tracking=none"]
    done = run_here(*chosen, f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("model=tabular: expected data=table")


def test_a_column_of_texts_is_read_by_its_words(tmp_path):
    words = ["warm", "cold", "wet", "dry", "windy", "calm"]
    rng = np.random.default_rng(0)
    days = [" ".join(rng.choice(words, 3, replace=False)) + f" day {n}" for n in range(200)]
    rows = "".join(f"{day},{'in' if 'wet' in day else 'out'}\n" for day in days)
    (tmp_path / "texts.csv").write_text(f"words,label\n{rows}")
    folder = tmp_path / "run"
    succeed_here(*SETTINGS, f"data.source={tmp_path}/texts.csv", f"hydra.run.dir={folder}")
    new = [{"words": "calm wet dry evening"}, {"words": "calm warm dry evening"}, {"words": None}]
    baselines = read_results(folder)["valid"].baselines
    assert {"tfidf_logistic_regression", "tfidf_linear_svm"} <= baselines.keys()
    answers = load(folder).predict(new)
    assert [answer["label"] for answer in answers[:2]] == ["in", "out"]
    assert (folder / "inference" / "text_readers.safetensors").is_file()


def test_one_network_learns_from_a_mixture(trained, source, tmp_path):
    argv = [*SETTINGS, f"data.source={source}", "trainer=distill", "model.folds=1"]
    teacher = f"trainer.teachers=[{trained[0]}]"
    done = succeed_here(*argv, teacher, f"hydra.run.dir={tmp_path}/student")
    assert not restore_model(tmp_path / "student").model.head.snapshots
    refused = run_here(*argv[:-1], teacher, f"hydra.run.dir={tmp_path}/several")
    assert refused.returncode == 2
    assert "model.folds=4: expected 1" in refused.stderr

    copy = tmp_path / "copy"
    shutil.copytree(trained[0], copy)
    (copy / "out_of_fold.safetensors").unlink()
    without = succeed_here(*argv, f"trainer.teachers=[{copy}]", f"hydra.run.dir={tmp_path}/without")
    assert final_state(without) != final_state(done)

    # Rows of another file have the same ids, but other cells.
    fewer = tmp_path / "fewer.csv"
    fewer.write_text("".join(source.read_text().splitlines(keepends=True)[:80]))
    argv[argv.index(f"data.source={source}")] = f"data.source={fewer}"
    refused = run_here(*argv, teacher, f"hydra.run.dir={tmp_path}/other")
    assert refused.returncode == 77
    assert "in another form" in refused.stderr


WORDS = """
health: physician surgeon nurse clinic patient vaccine hospital illness fever pharmacy dentist bandage ambulance
health: diagnosis therapy antibiotic
space: galaxy planet orbit telescope comet asteroid rocket astronaut nebula satellite spacecraft cosmos eclipse
space: meteor constellation supernova
"""


def test_a_pretrained_encoder_reads_texts_in_words_that_no_training_row_has(tmp_path, monkeypatch):
    try:
        resolve("minilm")
    except InputNotFoundError as error:
        pytest.skip(str(error))
    rows = []
    for line in WORDS.strip().splitlines():
        label, _, words = line.partition(": ")
        rows += [f"{word},{label}\n" for word in words.split()]
    (tmp_path / "texts.csv").write_text(f"text,label\n{''.join(rows)}")
    folder = tmp_path / "run"
    argv = ["data=text_classification", *SETTINGS[2:], f"data.source={tmp_path}/texts.csv"]
    argv += ["model.pretrained=minilm", f"hydra.run.dir={folder}"]
    done = succeed_here(*argv)
    # The run has its own copy of the encoder.
    monkeypatch.setitem(PACKAGES, "minilm", "no_such_package")
    texts = ("doctors and medicine", "the moon and stars")
    answers = load(folder).predict([{"text": text} for text in texts])
    assert [answer["label"] for answer in answers] == ["health", "space"]
    again = succeed_here(f"resume={folder}", "trust_folder=true")
    assert final_state(again) == final_state(done)

    encoder = restore_model(folder).encoder
    with pytest.raises(DataError, match="384 numbers"):
        encoder.with_embedder(SimpleNamespace(size=3))
    shutil.rmtree(folder / "inference" / "text_encoder")
    with pytest.raises(InputNotFoundError, match="text_encoder"):
        restore_model(folder)


def test_metrics_by_the_values_of_a_column(trained, source, tmp_path, capsys):
    argv = [f"run={trained[0]}", "json=true"]
    assert not evaluate([*argv, "slices=[color, day]"])
    result = json.loads(capsys.readouterr().out)
    colors = result["slices"]["color"]
    assert colors.keys() == {"red", "blue", "green"}
    assert sum(each["rows"] for each in colors.values()) == result["rows"]
    right = sum(each["metrics"]["accuracy"] * each["rows"] for each in colors.values())
    assert right / result["rows"] == pytest.approx(result["metrics"]["accuracy"])

    # Of a file also columns that the model does not read.
    names = ["" if number % 4 == 0 else chr(97 + number % 26) for number in range(200)]
    lines = zip(source.read_text().splitlines(), ["shop", *names], strict=True)
    (tmp_path / "shops.csv").write_text("".join(f"{line},{name}\n" for line, name in lines))
    argv += ["slices=[shop]"]
    assert not evaluate([*argv, f"data.source={tmp_path}/shops.csv"])
    shops = json.loads(capsys.readouterr().out)["slices"]["shop"]
    assert shops["missing"]["rows"] == 50
    assert shops["others"]["rows"] > 0
    assert evaluate([*argv, f"data.source={source}"]) == 2
    assert "slices=shop: no such column" in capsys.readouterr().err


def test_a_run_that_a_callback_stops_before_its_first_evaluation_says_so(tmp_path, source):
    class Stop(Callback):
        def on_step(self, context, state, result):
            context.control.stop_reason = "enough"

    config = compose(*SETTINGS, f"data.source={source}", f"hydra.run.dir={tmp_path / 'run'}")
    with pytest.raises(ConfigError, match="stopped at step 1, before the first evaluation: enough"):
        train(config, callbacks=[Stop()], quiet=True)


def test_early_stopping_would_leave_out_the_mixture(tmp_path, source):
    args = [*SETTINGS, f"data.source={source}", "callbacks.early_stopping.patience=2"]
    refused = run_here(*args, f"hydra.run.dir={tmp_path / 'refused'}")
    assert refused.returncode == 2
    assert "callbacks.early_stopping.patience=2: expected null, or model.folds=1" in refused.stderr
    succeed_here(*args, "model.folds=1", f"hydra.run.dir={tmp_path / 'alone'}")

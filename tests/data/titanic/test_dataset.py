"""The Titanic: where passengers come from, how they are split, baselines, and batches."""

import csv
import gzip
import hashlib
import importlib.util
import io
import json
from collections import Counter
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

import mlxlab.data
from mlxlab.data.labelled.split import fold_numbers, hold_out
from mlxlab.data.titanic.dataset import Augment, TitanicDataset
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.models.baselines.predict import predict_baselines, predict_rows
from support.titanic import (
    csv_text,
    make_titanic,
    new_bpe_trainer,
    new_renderer,
    real_rows,
    table_of,
)

ROWS = real_rows()
ROOT = Path(mlxlab.data.__file__).parent


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_titanic(tmp_path_factory.mktemp("cache"))


def test_an_epoch_shows_each_training_row_in_three_drawn_sentences(data):
    batches = list(data.train)
    ids = np.concatenate([batch.example_ids for batch in batches])
    counts = np.unique(ids, return_counts=True)
    assert set(counts[0].tolist()) == ids_of(data, "train")
    assert set(counts[1].tolist()) == {3}
    assert sum(len(batch.example_ids) for batch in batches) == 2139
    pairs = {
        pair
        for batch in batches
        for pair in zip(batch.example_ids.tolist(), map(decode(data), batch.tokens), strict=True)
    }
    assert 1.5 * 713 < len(pairs) < 2139  # drawn independently: some copies are alike


def ids_of(data, split):
    """The ids of the passengers of a split."""
    return {ROWS[row].id for row in getattr(data.split, split)}


def sentences(data, split):
    """The sentence of each passenger of a split in an evaluation."""
    return data.texts([ROWS[row].id for row in getattr(data.split, split)])


def decode(data):
    return lambda tokens: data.tokenizer.decode(tokens)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A function: the data set of 150 passengers."""
    folder = tmp_path_factory.mktemp("few")
    (folder / "few.csv").write_text(csv_text(ROWS[:150]))
    tokenizer = new_bpe_trainer(vocab_size=400)
    return partial(make_titanic, folder, source=str(folder / "few.csv"), tokenizer=tokenizer)


def test_a_training_sentence_is_a_function_of_row_seed_epoch_and_copy(few):
    def shown(epoch, **changes):
        data = few(prefetch=0, **changes)
        data.train.load_state_dict(data.train.state_dict() | {"epoch": epoch})
        pairs = (
            zip(batch.example_ids.tolist(), map(decode(data), batch.tokens), strict=True)
            for batch in data.train
        )
        return sorted(pair for batch in pairs for pair in batch)

    first = shown(5)
    assert first == shown(5)
    assert first == shown(5, batch_size=11)  # neither batches nor workers matter
    assert first != shown(6)


def test_validation_sentences_are_the_same_in_every_epoch_and_run(few):
    data, other = few(), few(augment=Augment(copies=1), eval_batch_size=5)
    list(data.train)
    decoded = [data.tokenizer.decode(row) for batch in data.valid for row in batch.tokens]
    assert decoded == sentences(data, "valid") == sentences(other, "valid")
    assert decoded == [other.tokenizer.decode(row) for batch in other.valid for row in batch.tokens]


BAD_CELLS = {
    "Survived": ("2", "-1"),
    "Pclass": ("4", None),
    "Sex": ("other", None),
    "Name": (None,),
    "Age": ("200", "-1", "nan", "young"),
    "SibSp": ("-1", None),
    "Parch": ("51",),
    "Ticket": (None,),
    "Fare": ("1e9",),
    "Embarked": ("X",),
    "PassengerId": ("0", "1.5", None),
}


@pytest.mark.parametrize("column", BAD_CELLS)
def test_a_cell_that_no_passenger_can_have_is_refused_by_name(data, column):
    table = table_of(ROWS[:5])
    for cell in BAD_CELLS[column]:
        broken = [*table[column][:3], cell, table[column][4]]
        with pytest.raises(DataError, match=f"^row 4: column '{column}': expected ") as caught:
            data.encoder.encode_rows({**table, column: broken})
        assert "\n" not in str(caught.value)


def test_inference_restores_the_encoding_without_the_training_rows(tmp_path):
    data = make_titanic(tmp_path, templates=["group", "narrative"], seed=7)
    data.save(tmp_path)
    restored = TitanicDataset.restore_encoder(tmp_path)
    assert restored.task == data.task
    table = table_of(ROWS)
    encoded = zip(data.encoder.encode_rows(table), restored.encode_rows(table), strict=True)
    for left, right in encoded:
        np.testing.assert_array_equal(left, right)
    assert json.loads((tmp_path / "data.json").read_text())["fingerprint"] == data.fingerprint


def test_a_damaged_folder_is_refused(few, tmp_path):
    few().save(tmp_path)
    text = (tmp_path / "data.json").read_text()
    state = json.loads(text)
    changes = [
        {"templates": ["secret"]},
        {"templates": []},
        {"templates": ["group"]},  # It reads groups, of which there are none.
        {"rules": "0"},
        {"members": {"companions": {"x": [[1]]}}},
        {"more": 1},
    ]
    states = [state | {"renderer": state["renderer"] | change} for change in changes]
    states += [state | {"more": 1}, *(state | {key: None} for key in state)]
    for content in ("", "[]", "null", "{}", text[:-20], *map(json.dumps, states)):
        (tmp_path / "data.json").write_text(content)
        with pytest.raises(DataError) as caught:
            TitanicDataset.restore_encoder(tmp_path)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputNotFoundError):
        TitanicDataset.restore_encoder(tmp_path / "nowhere")
    (tmp_path / "data.json").write_text(text)
    few(seed=1).tokenizer.save(tmp_path)
    with pytest.raises(DataError, match="is not the one"):
        TitanicDataset.restore_encoder(tmp_path)


def baseline_accuracies(data):
    targets = np.concatenate([batch.targets for batch in data.valid])
    return {
        each.name: np.mean(each.valid.argmax(axis=1) == targets) for each in predict_baselines(data)
    }


@pytest.mark.slow
def test_the_baselines_are_those_that_are_published(tmp_path):
    # Baselines read neither tokens nor copies.
    quick = {"tokenizer": new_bpe_trainer(vocab_size=300), "augment": Augment(copies=1)}
    folds = [
        baseline_accuracies(make_titanic(tmp_path, folds=5, fold=fold, **quick))
        for fold in range(5)
    ]
    mean = {name: np.mean([fold[name] for fold in folds]) for name in folds[0]}
    assert mean["majority"] == pytest.approx(0.6162, abs=0.0005)
    assert mean["female_rule"] == pytest.approx(0.7868, abs=0.0005)
    assert mean["tfidf_logistic_regression"] == pytest.approx(0.823, abs=0.006)
    other = baseline_accuracies(make_titanic(tmp_path, templates=["full"], **quick))
    assert set(other) == {*mean, "tfidf_same_sentences"}


def test_the_configured_data_set_is_that_of_the_tests(tmp_path, data):
    config = yaml.safe_load((ROOT.parents[2] / "conf/data/titanic.yaml").read_text())
    del config["_target_"], config["defaults"], config["augment"], config["select"]
    assert make_titanic(tmp_path, **config).fingerprint == data.fingerprint


def test_the_baselines_are_fitted_on_the_rows_and_on_each_of_their_sentences(few):
    data = few(templates=["full"])
    baselines = {each.name: each for each in predict_baselines(data)}
    renderer = new_renderer(["basic", "narrative", "descriptive", "story"])
    train, valid = (
        list(zip(*(renderer.sentences(ROWS[row].typed()) for row in rows), strict=True))
        for rows in (data.split.train, data.split.valid)
    )
    labels = np.array([ROWS[row].survived for row in data.split.train] * 4)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2))
    words = vectorizer.fit_transform(list(chain(*train)))
    model = LogisticRegression(tol=1e-8, max_iter=10_000).fit(words, labels)
    expected = np.mean(
        [model.predict_proba(vectorizer.transform(texts)) for texts in valid], axis=0
    )
    np.testing.assert_allclose(baselines["tfidf_logistic_regression"].valid, expected, atol=1e-3)
    assert not np.allclose(baselines["tfidf_same_sentences"].valid, expected, atol=1e-2)

    rule = baselines["female_rule"]
    assert rule.valid[:, 1].tolist() == [ROWS[row].sex == "female" for row in data.split.valid]
    assert rule.test.shape == (0, 2)
    predicted = predict_rows(data, lambda rows: table_of(ROWS[row] for row in rows), 9)
    others = next(each for each in predicted if each.name == "female_rule")
    assert others.valid[:, 1].tolist() == [row.sex == "female" for row in ROWS[:9]]


IDS = np.array([row.id for row in ROWS[:891]])
LABELS = np.array([row.survived for row in ROWS[:891]])
# PassengerId of each row of OpenML's file.
PASSENGER_ID_ORDER = Path(__file__).parents[1] / "passenger_id_order.json"


def read_openml_rows():
    """OpenML data set 40945 as it lies among the test data of scikit-learn."""
    folder = Path(importlib.util.find_spec("sklearn").origin).parent
    packed = folder / "datasets/tests/data/openml/id_40945/data-v1-dl-16826755.arff.gz"
    data = gzip.decompress(packed.read_bytes())
    assert (
        hashlib.sha256(data).hexdigest()
        == "c56e3785c96cd8aceac85f11bff21c2bf72841426f50903a6f27be8f334a7d03"
    )
    body = data.decode().split("@data", 1)[1].strip()
    return csv.reader(io.StringIO(body), escapechar="\\", doublequote=False, skipinitialspace=True)


def test_the_packaged_rows_are_those_of_openml():
    ids = json.loads(PASSENGER_ID_ORDER.read_text())
    for passenger_id, values in zip(ids, read_openml_rows(), strict=True):
        cells = [None if value == "?" else value.strip() for value in values[:11]]
        pclass, survived, name, sex, age, sibsp, parch, ticket, fare, cabin, embarked = cells
        age, fare = (None if number is None else float(number) for number in (age, fare))
        expected = (int(survived), int(pclass), name, sex, age, int(sibsp), int(parch))
        assert ROWS[passenger_id - 1] == (passenger_id, *expected, ticket, fare, cabin, embarked)


def sides_of(data):
    """The ids of the training and of the validation rows."""
    return [{ROWS[row].id for row in rows} for rows in (data.split.train, data.split.valid)]


def test_a_missing_named_file_is_never_replaced_by_other_rows(tmp_path):
    for source in (str(tmp_path / "none.csv"), "test"):
        with pytest.raises(InputNotFoundError):
            make_titanic(tmp_path, source=source)


def test_synthetic_rows_are_labelled_as_such_everywhere(tmp_path):
    tokenizer = new_bpe_trainer(vocab_size=400)
    data = make_titanic(tmp_path, source="synthetic", tokenizer=tokenizer)
    assert data.rows.name == "titanic-synthetic"
    assert all("synthetic" in line for line in data.sources)


def test_folds_partition_the_rows_and_are_stratified():
    numbers = fold_numbers(IDS, LABELS, 5, 0)
    assert sorted(Counter(numbers.tolist()).values()) == [178, 178, 178, 178, 179]
    shares = [LABELS[numbers == fold].mean() for fold in range(5)]
    assert max(shares) - min(shares) < 0.01
    assert not np.array_equal(numbers, fold_numbers(IDS, LABELS, 5, 1))


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.2, 0.5, 0.999])
def test_a_held_out_part_is_stratified_and_leaves_both_classes_on_both_sides(fraction):
    held = hold_out(IDS, LABELS, fraction, 0)
    for label in (0, 1):
        count = (label == LABELS).sum()
        expected = min(max(1, round(count * fraction)), count - 1)
        assert held[label == LABELS].sum() == expected


def test_the_split_depends_on_ids_not_on_the_order_of_rows():
    turned = np.random.default_rng(0).permutation(891)
    for split in (partial(hold_out, fraction=0.2), partial(fold_numbers, folds=5)):
        own = split(IDS, LABELS, seed=3)
        np.testing.assert_array_equal(own[turned], split(IDS[turned], LABELS[turned], seed=3))


@pytest.mark.parametrize("folds", [None, 5])
def test_no_passenger_is_on_both_sides_and_none_is_of_the_test_set(tmp_path, folds):
    tokenizer = new_bpe_trainer(vocab_size=300)
    train, valid = sides_of(make_titanic(tmp_path, folds=folds, tokenizer=tokenizer))
    assert not train & valid
    assert train | valid == set(range(1, 892))
    assert TitanicDataset.test_rows() == table_of(ROWS[891:])


def test_validation_rows_may_come_from_a_file_but_not_be_training_rows(tmp_path):
    paths = {"valid_source": (800, 891), "source": (0, 800), "again": (0, 810)}
    for name, rows in paths.items():
        (tmp_path / f"{name}.csv").write_text(csv_text(ROWS[slice(*rows)]))
    valid = str(tmp_path / "valid_source.csv")
    data = make_titanic(tmp_path, source=str(tmp_path / "source.csv"), valid_source=valid)
    assert sides_of(data) == [set(range(1, 801)), set(range(801, 892))]
    with pytest.raises(DataError, match="a PassengerId occurs twice"):
        make_titanic(tmp_path, source=str(tmp_path / "again.csv"), valid_source=valid)

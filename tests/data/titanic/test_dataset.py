"""The data set as training, evaluation and inference use it."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

import mlxlab.data
from mlxlab.data.titanic.dataset import Augment, TitanicDataset
from mlxlab.data.tokenizers.character import CharTokenizerTrainer
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.models.baselines.predict import predict_baselines
from support.titanic import make_titanic, new_bpe_trainer, real_rows, table_of

ROWS = real_rows()
ROOT = Path(mlxlab.data.__file__).parent


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_titanic(tmp_path_factory.mktemp("cache"))


def test_the_task_and_the_counts(data):
    assert (data.task.kind, data.task.num_classes, data.task.labels) == (
        "classification",
        2,
        ("died", "survived"),
    )
    assert data.class_counts == [439, 274]
    assert (data.train.batches_per_epoch, len(list(data.valid))) == (67, 3)


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


def test_labels_are_those_of_the_rows(data):
    truth = {row.id: row.survived for row in ROWS}
    for batch in [*data.train, *data.valid]:
        assert batch.targets.tolist() == [truth[i] for i in batch.example_ids]
        assert (batch.loss_weights == 1).all()


def ids_of(data, split):
    """The ids of the passengers of a split."""
    return {ROWS[row].id for row in getattr(data.split, split)}


def sentences(data, split):
    """The sentence of each passenger of a split in an evaluation."""
    return data.texts([ROWS[row].id for row in getattr(data.split, split)])


def decode(data):
    return lambda tokens: data.tokenizer.decode(tokens)


def test_a_training_sentence_is_a_function_of_row_seed_epoch_and_copy(tmp_path):
    def shown(epoch, **changes):
        data = make_titanic(tmp_path, prefetch=0, **changes)
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


def test_validation_sentences_are_the_same_in_every_epoch_and_run(tmp_path):
    data, other = (
        make_titanic(tmp_path),
        make_titanic(tmp_path, augment=Augment(copies=1), eval_batch_size=5),
    )
    list(data.train)
    decoded = [data.tokenizer.decode(row) for batch in data.valid for row in batch.tokens]
    assert decoded == sentences(data, "valid") == sentences(other, "valid")
    assert decoded == [other.tokenizer.decode(row) for batch in other.valid for row in batch.tokens]


def test_all_templates_are_used(data):
    chosen = data.encoder.renderer.choose(np.arange(1, 892))
    assert (np.bincount(chosen, minlength=4) > 180).all()


def test_batches_have_the_agreed_shapes(data):
    for batch in [
        next(iter(data.train)),
        *data.valid,
        data.encoder.encode_rows(table_of(ROWS[:3])),
    ]:
        rows, length = batch.tokens.shape
        assert length % 8 == 0 or length in {batch.tokens.shape[1] for batch in data.train}
        assert batch.tokens.dtype == batch.segment_ids.dtype == batch.targets.dtype == np.int32
        assert batch.loss_weights.dtype == np.float32
        assert batch.example_ids.dtype == np.int64
        assert batch.segment_ids.shape == (rows, length)
        assert batch.targets.shape == batch.loss_weights.shape == batch.example_ids.shape == (rows,)
        np.testing.assert_array_equal(batch.tokens == data.tokenizer.pad_id, batch.segment_ids == 0)
        assert (batch.tokens[:, 0] == data.tokenizer.bos_id).all()
        ends = batch.tokens[np.arange(rows), batch.segment_ids.sum(1) - 1]
        assert (ends == data.tokenizer.eos_id).all()


def test_sentences_are_truncated_to_seq_len(tmp_path):
    data = make_titanic(tmp_path, seq_len=12)
    assert {batch.tokens.shape[1] for batch in data.train} == {12}


def test_every_training_row_is_reached_across_five_folds(tmp_path):
    quick = {"templates": ["basic"], "augment": Augment(copies=1), "baselines": False}
    held = [
        ids_of(make_titanic(tmp_path, folds=5, fold=fold, **quick), "valid") for fold in range(5)
    ]
    assert set.union(*held) == set(range(1, 892))
    assert sum(map(len, held)) == 891


def test_unlabelled_rows_have_no_weight_and_a_label_in_range(data):
    batch = data.encoder.encode_rows(table_of(row._replace(survived=None) for row in ROWS[:5]))
    assert batch.targets.tolist() == [0] * 5
    assert batch.loss_weights.tolist() == [0] * 5


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("Survived", "2"),
        ("Survived", "-1"),
        ("Pclass", "4"),
        ("Pclass", None),
        ("Sex", "other"),
        ("Sex", None),
        ("Name", None),
        ("Age", "200"),
        ("Age", "-1"),
        ("Age", "nan"),
        ("Age", "young"),
        ("SibSp", "-1"),
        ("SibSp", None),
        ("Parch", "51"),
        ("Ticket", None),
        ("Fare", "1e9"),
        ("Embarked", "X"),
        ("PassengerId", "0"),
        ("PassengerId", "1.5"),
        ("PassengerId", None),
    ],
)
def test_a_cell_that_no_passenger_can_have_is_refused_by_name(data, column, cell):
    table = table_of(ROWS[:5])
    broken = [*table[column][:3], cell, table[column][4]]
    with pytest.raises(DataError, match=f"^row 4: column '{column}': expected ") as caught:
        data.encoder.encode_rows({**table, column: broken})
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_column_is_refused_by_name(data):
    table = table_of(ROWS[:5])
    with pytest.raises(DataError, match="no column 'Sex', 'Age'"):
        data.encoder.encode_rows({k: v for k, v in table.items() if k not in ("Sex", "Age")})


def test_numbers_may_be_spelled_as_pandas_spells_them(data):
    table = table_of(ROWS[:20])
    floats = {**table, "Pclass": [f"{cell}.0" for cell in table["Pclass"]]}
    for left, right in zip(
        data.encoder.encode_rows(table)[:5], data.encoder.encode_rows(floats)[:5], strict=True
    ):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("templates", [["basic", "story"], ["full"], ["group", "narrative"]])
def test_inference_restores_the_encoding_without_the_training_rows(tmp_path, templates):
    data = make_titanic(tmp_path, templates=templates, seed=7)
    data.save(tmp_path)
    restored = TitanicDataset.restore_encoder(tmp_path)
    assert restored.task == data.task
    table = table_of(ROWS)
    for left, right in zip(
        data.encoder.encode_rows(table), restored.encode_rows(table), strict=True
    ):
        np.testing.assert_array_equal(left, right)
    assert json.loads((tmp_path / "data.json").read_text())["fingerprint"] == data.fingerprint


def test_validation_batches_equal_what_inference_encodes(data):
    rows = [ROWS[row] for row in data.split.valid]
    for batch, start in zip(data.valid, range(0, len(rows), 64), strict=True):
        part = rows[start : start + 64]
        encoded = data.encoder.encode_rows(table_of(part))
        ids = np.array([row.id for row in part])
        for left, right in zip(batch, encoded._replace(example_ids=ids), strict=True):
            np.testing.assert_array_equal(left, right)


def test_a_damaged_folder_is_refused(tmp_path):
    data = make_titanic(tmp_path)
    data.save(tmp_path)
    text = (tmp_path / "data.json").read_text()
    state = json.loads(text)
    bad = ["", "[]", "null", "{}", text[:-20], *(json.dumps(state | {key: None}) for key in state)]
    renderer = state["renderer"]
    changes = [
        {"templates": ["secret"]},
        {"templates": []},
        {"templates": ["group"]},  # It reads groups, of which there are none.
        {"rules": "0"},
        {"members": {"companions": {"x": [[1]]}}},
        {"more": 1},
    ]
    bad += [json.dumps(state | {"renderer": renderer | change}) for change in changes]
    bad.append(json.dumps(state | {"more": 1}))
    for content in bad:
        (tmp_path / "data.json").write_text(content)
        with pytest.raises(DataError) as caught:
            TitanicDataset.restore_encoder(tmp_path)
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(InputNotFoundError):
        TitanicDataset.restore_encoder(tmp_path / "nowhere")
    (tmp_path / "data.json").write_text(text)
    make_titanic(tmp_path, seed=1).tokenizer.save(tmp_path)
    with pytest.raises(DataError, match="is not the one"):
        TitanicDataset.restore_encoder(tmp_path)


def baseline_accuracies(data):
    targets = np.concatenate([batch.targets for batch in data.valid])
    return {
        each.name: np.mean(each.valid.argmax(axis=1) == targets) for each in predict_baselines(data)
    }


def test_the_baselines_are_those_that_are_published(tmp_path):
    quick = {
        "tokenizer": new_bpe_trainer(vocab_size=300),
        "augment": Augment(copies=1),
    }  # baselines read neither
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


def test_the_tokenizer_may_have_single_characters_or_a_chosen_size(tmp_path):
    characters = CharTokenizerTrainer(on_unknown="bytes", train_examples=10_000, path=None)
    data = make_titanic(tmp_path, tokenizer=characters, seq_len=300)
    row = next(iter(data.valid)).tokens[0]
    assert data.tokenizer.decode(row) == sentences(data, "valid")[0]
    chosen = make_titanic(tmp_path, tokenizer=new_bpe_trainer(vocab_size="auto"))
    assert f"vocabulary: {chosen.tokenizer.vocab_size:,} tokens" in " ".join(chosen.sources)


def test_a_cached_tokenizer_gives_the_same_data(tmp_path):
    first, second = make_titanic(tmp_path), make_titanic(tmp_path)
    assert "tokenizer trained" in " ".join(first.sources)
    assert "tokenizer reused" in " ".join(second.sources)
    assert first.fingerprint == second.fingerprint


def test_rows_without_labels_are_encoded(data):
    table = {name: cells for name, cells in table_of(ROWS[:5]).items() if name != "Survived"}
    batch = data.encoder.encode_rows(table)
    assert not batch.loss_weights.any()
    np.testing.assert_array_equal(batch.tokens, data.encoder.encode_rows(table_of(ROWS[:5])).tokens)


def test_the_configured_data_set_is_that_of_the_tests(tmp_path, data):
    config = yaml.safe_load((ROOT.parents[2] / "conf/data/titanic.yaml").read_text())
    del config["_target_"], config["defaults"], config["augment"], config["select"]
    assert make_titanic(tmp_path, **config).fingerprint == data.fingerprint


def test_data_modules_import_no_heavy_package_when_loaded():
    heavy = {"mlx", "pandas", "sklearn", "scipy", "hydra", "omegaconf", "mlflow"}
    for path in ROOT.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in getattr(node, "names", [])]
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
            assert not heavy & {name.split(".")[0] for name in names}, path

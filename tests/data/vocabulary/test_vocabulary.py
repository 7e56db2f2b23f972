"""A vocabulary of the most frequent tokens: which ids there are, in which batches, and what is refused."""

import json

import numpy as np
import pytest

from mlxlab.data.batch import match_vocab_size, vocabulary_of
from mlxlab.data.text.encoder import restore
from mlxlab.data.vocabulary.fit_vocabulary import choose
from mlxlab.data.vocabulary.vocabulary_map import FILE, IS_CORE, TARGET_BYTES, VocabularyLimit
from mlxlab.errors import ConfigError, DataError, InputNotFoundError, NotAllowedError
from support.streams import take
from support.vocabulary import text_data


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full")
    return text_data(folder)


@pytest.fixture
def mapped(full, tmp_path):
    return text_data(tmp_path, size=10)


def counts_of(tokenizer, seed=0):
    counts = np.random.default_rng(seed).integers(0, 100, tokenizer.vocab_size)
    counts[4::5] = 0  # some do not occur
    counts[sorted(tokenizer.special_ids)] = 1
    return counts


@pytest.mark.parametrize("size", [5, 9, 14])
def test_kept_tokens_have_ids_of_their_own_and_all_others_the_last_one(full, size):
    """Neither does a listed token share the rare id, nor an unlisted one an id of a listed token."""
    vocabulary = choose(VocabularyLimit(size, None), full.tokenizer, counts_of(full.tokenizer))
    assert vocabulary.size == size + 1
    assert vocabulary.rare_id == size
    np.testing.assert_array_equal(vocabulary.forward[vocabulary.core_ids], np.arange(size))
    rare = np.setdiff1d(np.arange(full.tokenizer.vocab_size), vocabulary.core_ids)
    assert len(rare) == vocabulary.num_rare > 1
    assert (vocabulary.forward[rare] == size).all()
    assert vocabulary.restore([*range(size), size]) == vocabulary.core_ids.tolist()


@pytest.mark.parametrize("size", [5, 9, 14])
def test_the_most_frequent_tokens_and_all_special_ones_are_kept(full, size):
    counts = counts_of(full.tokenizer)
    vocabulary = choose(VocabularyLimit(size, None), full.tokenizer, counts)
    special = full.tokenizer.special_ids
    assert len(special) == 4
    assert special <= set(vocabulary.core_ids.tolist())
    ordinary = [token for token in range(full.tokenizer.vocab_size) if token not in special]
    expected = sorted(ordinary, key=lambda token: (-counts[token], token))[: size - 4]
    assert set(vocabulary.core_ids.tolist()) == special | set(expected)


@pytest.mark.parametrize("coverage", [0.07, 0.5, 0.9, 0.99])
def test_coverage_keeps_no_more_tokens_than_it_needs(full, coverage):
    counts = counts_of(full.tokenizer)
    vocabulary = choose(VocabularyLimit(None, coverage), full.tokenizer, counts)
    assert counts[vocabulary.core_ids].sum() / counts.sum() >= coverage
    fewer = VocabularyLimit(len(vocabulary.core_ids) - 1, None)
    if fewer.size > len(full.tokenizer.special_ids):
        smaller = choose(fewer, full.tokenizer, counts)
        assert counts[smaller.core_ids].sum() / counts.sum() < coverage


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("masked", [False, True])
def test_every_batch_is_mapped_once_and_its_targets_keep_their_text(tmp_path, prefetch, masked):
    full, mapped = (
        text_data(tmp_path, size, masked=masked, prefetch=prefetch) for size in (None, 10)
    )
    forward = mapped.tokenizer.vocabulary.forward
    steps = 2 * full.train.batches_per_epoch
    for expected, batch in zip(take(full.train, steps), take(mapped.train, steps), strict=True):
        np.testing.assert_array_equal(
            np.array(batch[2]) * batch[1], forward[expected[2]] * expected[1]
        )
        if not masked:
            np.testing.assert_array_equal(batch[0], forward[expected[0]])
    for expected, batch in zip(full.valid, mapped.valid, strict=True):
        real = expected.segment_ids > 0
        np.testing.assert_array_equal(batch.targets[real], forward[expected.targets[real]])
        is_core = np.isin(expected.targets, mapped.tokenizer.vocabulary.core_ids)
        np.testing.assert_array_equal(batch.aux[IS_CORE][real], is_core[real])
        sizes = np.array(full.tokenizer.token_bytes)[expected.targets]
        np.testing.assert_array_equal(batch.aux[TARGET_BYTES][real], sizes[real])


@pytest.mark.parametrize("overfit_batches", [None, 3])
@pytest.mark.parametrize("prefetch", [0, 3])
def test_a_grown_vocabulary_goes_on_with_the_next_row_in_original_ids_also_after_a_resume(
    tmp_path, prefetch, overfit_batches
):
    options = {"prefetch": prefetch, "overfit_batches": overfit_batches}
    full, mapped, resumed = (text_data(tmp_path, size, **options) for size in (None, 10, 10))
    expected, forward = take(full.train, 9), mapped.tokenizer.vocabulary.forward
    batches = iter(mapped.train)
    taken = [next(batches) for _ in range(2)]
    before = json.dumps(mapped.train.state_dict())
    assert vocabulary_of(mapped.train).rare_id == 10
    match_vocab_size(mapped.train, full.tokenizer.vocab_size)
    assert vocabulary_of(mapped.train) is None
    after = json.dumps(mapped.train.state_dict())
    np.testing.assert_array_equal(taken[1].tokens, forward[expected[1][0]])
    if overfit_batches is None:
        assert np.array_equal(next(batches).tokens, expected[2][0])
    batches.close()
    for state, ids in ((before, forward), (after, np.arange(full.tokenizer.vocab_size))):
        resumed.train.load_state_dict(json.loads(state))
        again = take(resumed.train, 2)
        np.testing.assert_array_equal(again[0][0], ids[expected[2][0]])
        np.testing.assert_array_equal(again[1][0], ids[expected[3 % (overfit_batches or 9)][0]])
    for batch, original in zip(resumed.valid, full.valid, strict=True):
        np.testing.assert_array_equal(batch.targets, original.targets)
    match_vocab_size(resumed.train, 11)
    assert vocabulary_of(resumed.train) is resumed.tokenizer.vocabulary
    match_vocab_size(full.train, 11)
    assert vocabulary_of(full.train) is None


def test_a_position_in_another_vocabulary_is_refused(tmp_path):
    mapped, other, full = (text_data(tmp_path, size) for size in (10, 11, None))
    state = mapped.train.state_dict()
    with pytest.raises(DataError, match="is in other data"):
        other.train.load_state_dict(state)
    with pytest.raises(DataError, match="is in other data"):
        mapped.train.load_state_dict(full.train.state_dict())
    with pytest.raises(DataError, match="the saved position is malformed"):
        mapped.train.load_state_dict({**state, "vocabulary_grown": 1})


def test_the_map_is_saved_with_the_run_and_read_again(tmp_path):
    mapped = text_data(tmp_path, coverage=0.8)
    folder = tmp_path / "inference"
    folder.mkdir()
    mapped.save(folder)
    encoder = restore(folder)
    assert (
        encoder.tokenizer.fingerprint
        == mapped.tokenizer.fingerprint
        != mapped.tokenizer.original.fingerprint
    )
    text = "zebra 012 of d"
    ids = encoder.tokenizer.encode(text, special=False)
    assert (
        ids
        == mapped.tokenizer.vocabulary.forward[
            mapped.tokenizer.original.encode(text, special=False)
        ].tolist()
    )
    assert encoder.tokenizer.decode(ids) == "".join(
        c for c, i in zip(text, ids, strict=True) if i < encoder.tokenizer.vocab_size - 1
    )
    resumed = text_data(tmp_path, coverage=0.8, restored=folder)
    assert resumed.fingerprint == mapped.fingerprint
    with pytest.raises(
        ConfigError, match=r"data.vocabulary.size=10: the run was started with .*coverage=0.8"
    ):
        text_data(tmp_path, size=10, restored=folder)
    with pytest.raises(ConfigError, match=r"no data.vocabulary: the run was started with"):
        text_data(tmp_path, restored=folder)


def damage(folder, **changes):
    path = folder / FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"core_ids": [0, 1, 2, 3, 5, 4]}, "distinct ids in order"),
        ({"core_ids": [0, 1, 2, 3, 5, 5]}, "distinct ids in order"),
        ({"core_ids": [0, 1, 2, 3, 9999]}, "distinct ids in order"),
        ({"core_ids": [-1, 0, 1, 2, 3]}, "distinct ids in order"),
        ({"core_ids": []}, "distinct ids in order"),
        ({"core_ids": list(range(200))}, "distinct ids in order"),
        ({"core_ids": [0, 1, 3, 5, 6]}, "with all special tokens"),
        ({"core_ids": "all"}, "expected list"),
        ({"tokenizer": "0123456789abcdef"}, "expected a map of the tokenizer"),
        ({"vocab_size": 7}, "expected a map of the tokenizer"),
        ({"format": "other"}, "expected format"),
        ({"more": 1}, "unknown key"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_damaged_map_or_one_of_another_tokenizer_is_refused_in_a_line(
    mapped, tmp_path, changes, message
):
    folder = tmp_path / "inference"
    folder.mkdir()
    mapped.save(folder)
    damage(folder, **changes)
    with pytest.raises(DataError, match=message) as error:
        restore(folder)
    assert "\n" not in str(error.value)


def test_a_changed_or_missing_map_is_refused(mapped, tmp_path):
    folder = tmp_path / "inference"
    folder.mkdir()
    mapped.save(folder)
    kept = mapped.tokenizer.vocabulary.core_ids.tolist()
    other = sorted({*kept[:-1], next(token for token in range(99) if token not in kept)})
    damage(folder, core_ids=other)
    with pytest.raises(NotAllowedError, match="is not the map that the model was trained with"):
        restore(folder)
    (folder / FILE).unlink()
    with pytest.raises(InputNotFoundError, match=FILE):
        restore(folder)


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (
            {"size": 4},
            r"data.vocabulary.size=4: expected 5 to \d+ of \d+ tokens, got 4 with 4 special ones",
        ),
        ({"size": 1000}, r"data.vocabulary.size=1000: expected 5 to"),
        (
            {"coverage": 1.0},
            r"data.vocabulary.coverage=1.0: expected 5 to \d+ of \d+ tokens, got \d+",
        ),
        ({"size": 9, "coverage": 0.5}, "expected size or coverage, got both"),
    ],
    ids=str,
)
def test_a_limit_that_does_not_fit_the_vocabulary_is_refused_in_a_line(tmp_path, limit, message):
    with pytest.raises(ConfigError, match=message) as error:
        text_data(tmp_path, **limit)
    assert "\n" not in str(error.value)

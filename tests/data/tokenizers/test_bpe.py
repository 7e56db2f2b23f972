"""The size of a vocabulary: nested trainings, exact counts, the three limits, and what is cached."""

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest

from mlxlab.data.cache import HEADER_BYTES, cached
from mlxlab.data.tokenizers.bpe import (
    merge_parents,
    size_by_data,
    tokens_by_size,
    train_bpe,
    truncate_bpe,
    vocabulary_sizes,
)
from mlxlab.data.tokenizers.fit import Corpus
from mlxlab.errors import DataError, InputNotFoundError, NotAllowedError
from support.titanic import new_bpe_trainer, real_rows

TEXTS = [f"{row.name} embarked at {row.embarked}, ticket {row.ticket}" for row in real_rows()]
LARGE = train_bpe(TEXTS, 1500, 2)
FILE = json.loads(LARGE.inner.to_str())
CORPUS = {"key": "corpus", "parameters": 1_000_000, "width": 128, "planned_bytes": None}


def fit(cache, texts=TEXTS, corpus=CORPUS, pretrained=None, **options):
    """What a trainer makes of a corpus."""
    texts = Corpus(texts, cache=cache, pretrained=pretrained, **corpus)
    return new_bpe_trainer(**options).fit(texts)


def counts_of(tokenizer, texts=TEXTS):
    tokens = np.concatenate(tokenizer.encode_documents(texts))
    return np.bincount(tokens, minlength=tokenizer.vocab_size)


@pytest.mark.parametrize("size", [260, 261, 512, 1000, 1500])
def test_a_truncated_large_vocabulary_equals_the_small_one(size, tmp_path):
    direct = train_bpe(TEXTS, size, 2)
    (tmp_path / "tokenizer.json").write_text(json.dumps(truncate_bpe(FILE, size)))
    assert fit(tmp_path, [], path=str(tmp_path)).tokenizer.fingerprint == direct.fingerprint


def test_undoing_merges_gives_the_tokens_of_every_smaller_vocabulary():
    totals = tokens_by_size(counts_of(LARGE), merge_parents(FILE))
    assert vocabulary_sizes(1500) == [*range(512, 1500, 64), 1500]
    for size in (512, 1023, 1500):
        assert totals[size] == counts_of(train_bpe(TEXTS, size, 2)).sum()


def test_the_text_supports_tokens_that_occur_64_times_on_average():
    per_token = {512: 2.0, 1024: 2.5, 2048: 3.0}
    assert size_by_data(per_token, 64 * 1024 * 2.5) == 1024
    assert size_by_data(per_token, 64 * 1024 * 2.5 - 1) == 512
    assert size_by_data(per_token, 10) == 512
    assert size_by_data(per_token, 10**9) == 2048


def test_a_text_of_a_megabyte_gets_thousands_of_tokens(tmp_path):
    """512 tokens, which the data limit once gave it, doubled the length of its rows."""
    generator = random.Random(0)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    words = ["".join(generator.choices(syllables, k=3)) for _ in range(9000)]
    weights = [1 / rank for rank in range(1, 9001)]
    texts = [" ".join(generator.choices(words, weights, k=200)) for _ in range(900)]
    num_bytes = sum(map(len, texts))
    assert 1_200_000 < num_bytes < 1_300_000
    trainer = new_bpe_trainer(min_vocab_size=5000, max_vocab_size=8000)
    corpus = Corpus(texts, cache=tmp_path, **CORPUS | {"planned_bytes": num_bytes})
    assert trainer.fit(corpus).tokenizer.vocab_size > 3000


def test_the_smallest_limit_decides_and_all_are_reported(tmp_path):
    limited = fit(tmp_path, corpus=CORPUS | {"planned_bytes": 400_000})
    named = dict(re.findall(r"([\d,]+) by (\w+)", limited.lines[-1]))
    assert {*named.values()} >= {"model", "data"}
    smallest = min(int(limit.replace(",", "")) for limit in named)
    assert limited.tokenizer.vocab_size == max(512, smallest // 64 * 64)


@pytest.mark.parametrize(
    ("planned_bytes", "options", "size", "is_raised"),
    [
        (10**9, {"min_vocab_size": 1050}, 1050, True),
        (90_000, {"min_vocab_size": 1050}, 512, False),
        (None, {"min_vocab_size": 1050}, 1050, True),
        (10**9, {"max_vocab_size": 600}, 600, False),
        (10**9, {"vocab_size": 777}, 777, False),
    ],
)
def test_the_bounds_hold_unless_the_text_is_too_small(
    tmp_path, planned_bytes, options, size, is_raised
):
    fitted = fit(tmp_path, corpus=CORPUS | {"planned_bytes": planned_bytes}, **options)
    assert fitted.tokenizer.vocab_size == size
    assert ("raised by data.tokenizer.min_vocab_size" in fitted.lines[-1]) == is_raised


def test_the_same_corpus_and_settings_reuse_the_cached_tokenizer(tmp_path):
    first, again = fit(tmp_path), fit(tmp_path, unreadable())
    assert again.tokenizer.fingerprint == first.tokenizer.fingerprint
    assert "trained" in first.lines[0]
    assert "reused" in again.lines[0]
    others = [{"min_frequency": 3}, {"train_examples": 500}, {"max_vocab_size": 1000}]
    for other in [*others, {"corpus": CORPUS | {"key": "another"}}]:
        with pytest.raises(AssertionError, match="read"):
            fit(tmp_path, unreadable(), **other)


def unreadable():
    raise AssertionError("the corpus was read")
    yield


@pytest.mark.parametrize(
    "change",
    [
        None,
        {"bytes_per_token": [2.0]},
        {"bytes_per_token": "many"},
        {"tokenizer": {"model": {"type": "BPE", "vocab": {}, "merges": []}}},
    ],
    ids=["truncated", "other sizes", "other types", "another tokenizer"],
)
def test_a_malformed_cached_tokenizer_is_trained_again(change, tmp_path, caplog):
    options = {"texts": TEXTS[:300], "max_vocab_size": 700}
    first = fit(tmp_path, **options)
    (path,) = (tmp_path / "tokenizers").iterdir()
    data = path.read_bytes()
    if change is None:
        path.write_bytes(data[: len(data) // 2])
    else:  # Its digest is right.
        content = json.dumps(json.loads(data[HEADER_BYTES:]) | change).encode()
        path.unlink()
        cached(path, lambda file: file.write(content), lambda data: None)
    again = fit(tmp_path, **options)
    assert "is corrupt" in caplog.text
    assert again.tokenizer.fingerprint == first.tokenizer.fingerprint
    assert "reused" in fit(tmp_path, **options | {"texts": []}).lines[0]


@pytest.mark.parametrize("texts", [[], [" \n", ""]])
def test_a_corpus_without_text_is_refused(tmp_path, texts):
    with pytest.raises(DataError, match="no text"):
        fit(tmp_path, texts)


def test_a_path_is_taken_as_it_is_and_must_be_that_of_the_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own, other = tmp_path / "own", tmp_path / "other"
    for folder, size in ((own, 300), (other, 301)):
        folder.mkdir()
        train_bpe(TEXTS, size, 2).save(folder)
    for path in (str(own), str(own / "tokenizer.json")):
        fitted = fit(tmp_path, unreadable(), path=path, pretrained=own)
        assert fitted.tokenizer.vocab_size == 300
        assert fitted.lines == [f"tokenizer of {Path(path).relative_to(tmp_path)}: 300 tokens"]
    assert fit(tmp_path, unreadable(), pretrained=other).tokenizer.vocab_size == 301
    with pytest.raises(NotAllowedError, match="expected the tokenizer of the weights"):
        fit(tmp_path, [], path=str(own), pretrained=other)
    with pytest.raises(InputNotFoundError, match=r"tokenizer\.json"):
        fit(tmp_path, [], path=str(tmp_path))

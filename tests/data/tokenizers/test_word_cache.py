"""The word cache gives the ids of the tokenizer on any text, in bounded memory."""

import random

import numpy as np
import pytest
import tokenizers
from tokenizers import pre_tokenizers

from mlxlab.data.tokenizers import tokenizer as module
from mlxlab.data.tokenizers.bpe import train_bpe
from mlxlab.data.tokenizers.tokenizer import COVERED, MAX_WORD_LENGTH, WORD, Tokenizer

ASCII = "ab cd'stmrevlld \n\t\r\x0b\x0c\x1c\x1f\x00\x7f12_-.!<pad>  "
LATIN = (
    ASCII + "\xe9\xc6\xf8\u0130\u017f\u2010\u2014\u2018\u2019\u201c\u201d\u2026\u2027\u2030\u205e"
)
WIDE = LATIN + "\xe9\xdf\xb2\u0130\u4e2d\U0001f600\x85\xa0\u2028"


def draw(alphabet, count, seed=0):
    generator = random.Random(seed)
    return ["".join(generator.choices(alphabet, k=generator.randrange(60))) for _ in range(count)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(draw(ASCII, 2000, seed=1), 400, 2)


def uncached(tokenizer, texts):
    encodings = tokenizer.inner.encode_batch_fast(texts, add_special_tokens=False)
    return [encoding.ids for encoding in encodings]


def encode(cache, texts):
    encoded = cache.encode(texts)
    assert all(ids.dtype == np.int32 for ids in encoded)
    return [ids.tolist() for ids in encoded]


@pytest.mark.parametrize("alphabet", [ASCII, LATIN, WIDE], ids=["ascii", "latin", "wide"])
def test_cached_words_give_the_ids_of_the_tokenizer(tokenizer, alphabet):
    texts = ["", *draw(alphabet, 4000), "a" * 1000, "it's they'll I'D we've"]
    expected = uncached(tokenizer, texts)
    for _ in range(2):  # First nothing is cached, then every word is.
        assert [ids.tolist() for ids in tokenizer.encode_documents(texts)] == expected


def test_covered_characters_are_split_as_by_the_tokenizer(tokenizer):
    characters = [
        character for character in map(chr, range(0x3000)) if COVERED.fullmatch(character)
    ]
    split = tokenizer.inner.pre_tokenizer.pre_tokenize_str
    for text in (
        f"{context}{character}{context}"
        for character in characters
        for context in ("a", "1", " ", ".", "'", "")
    ):
        assert WORD.findall(text) == [text[start:end] for _, (start, end) in split(text)], repr(
            text
        )
    assert len(characters) > 350


def test_words_with_curly_quotes_and_accents_are_cached(tokenizer):
    cache = tokenizer._words
    cache.encode(["\u201cna\u00efve\u201d \u2014 it\u2019s"])
    assert cache.ids


def test_the_cache_is_bounded(tokenizer, monkeypatch):
    monkeypatch.setattr(module, "MAX_WORDS", 50)
    cache = tokenizer._words
    for number in range(40):
        texts = [f"w{chr(97 + number % 26)}{number} " + "x" * 100, "b" * number]
        assert encode(cache, texts) == uncached(tokenizer, texts)
        assert len(cache.ids) <= 50
        assert max(map(len, cache.ids), default=0) <= MAX_WORD_LENGTH


def test_a_tokenizer_with_another_word_pattern_is_not_cached(tokenizer):
    inner = tokenizers.Tokenizer.from_str(tokenizer.inner.to_str())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    texts = draw(ASCII, 100)
    cache = Tokenizer(inner)._words
    assert not cache.is_usable
    assert encode(cache, texts) == uncached(Tokenizer(inner), texts)

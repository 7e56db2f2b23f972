"""Looking words up gives the ids of the tokenizer itself, on any text, from a bounded memory."""

import random

import numpy as np
import pytest

from mlxlab.data.tokenizers import word_cache
from mlxlab.data.tokenizers.tokenizer import ByteLevelBPE
from mlxlab.data.tokenizers.word_cache import WordCache

SIGNS = "ab cd'stmrevlld \n\t\r\x0b\x0c\x1c\x1f\x00\x7f12_-.!<pad>  "
LATIN = SIGNS + "\xe9\xc6\xf8\u0130\u017f\u2010\u2014\u2018\u2019\u201c\u201d\u2026\u2027\u2030\u205e"
WIDE = LATIN + "\xe9\xdf\xb2\u0130\u4e2d\U0001f600\x85\xa0\u2028"


def draw(alphabet, count, seed=0):
    chance = random.Random(seed)
    return ["".join(chance.choices(alphabet, k=chance.randrange(60))) for _ in range(count)]


@pytest.fixture(scope="module")
def tokenizer():
    return ByteLevelBPE(400, 2).train(draw(SIGNS, 2000, seed=1))


def same(one, other):
    return all(np.array_equal(a, b) and a.dtype == b.dtype == np.int32 for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("alphabet", [SIGNS, LATIN, WIDE], ids=["ascii", "latin", "wide"])
def test_words_looked_up_give_the_ids_of_the_tokenizer(tokenizer, alphabet):
    words, texts = WordCache(tokenizer), ["", *draw(alphabet, 4000), "a" * 1000, "it's they'll I'D we've"]
    assert words.usable
    for _ in range(2):  # unknown, then known
        assert same(words.encode_documents(texts), tokenizer.encode_documents(texts))


def test_every_sign_that_is_cut_is_cut_as_the_tokenizer_cuts_it(tokenizer):
    signs = [sign for sign in map(chr, range(0x3000)) if word_cache.KNOWN.fullmatch(sign)]
    cut = tokenizer.inner.pre_tokenizer.pre_tokenize_str
    for text in (f"{around}{sign}{around}" for sign in signs for around in ("a", "1", " ", ".", "'", "")):
        assert word_cache.WORD.findall(text) == [text[start:end] for _, (start, end) in cut(text)], repr(text)
    assert len(signs) > 350


def test_curly_quotes_and_accents_are_looked_up(tokenizer):
    words = WordCache(tokenizer)
    words.encode_documents(["\u201cna\u00efve\u201d \u2014 it\u2019s"])
    assert words.known


def test_what_is_remembered_is_bounded(tokenizer, monkeypatch):
    monkeypatch.setattr(word_cache, "WORDS", 50)
    words = WordCache(tokenizer)
    for number in range(40):
        texts = [f"w{chr(97 + number % 26)}{number} " + "x" * 100, "b" * number]
        assert same(words.encode_documents(texts), tokenizer.encode_documents(texts))
        assert len(words.known) <= 50
        assert max(map(len, words.known)) <= word_cache.LONGEST


def test_another_tokenizer_takes_its_own_way(tokenizer):
    import tokenizers
    from tokenizers import pre_tokenizers

    from mlxlab.data.tokenizers.tokenizer import Tokenizer

    inner = tokenizers.Tokenizer.from_str(tokenizer.inner.to_str())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    other, texts = Tokenizer(inner), draw(SIGNS, 100)
    words = WordCache(other)
    assert not words.usable
    assert same(words.encode_documents(texts), other.encode_documents(texts))
    assert not words.known

"""Tokenizers: exact round trips, the same one each time, those of pretrained models, and the cache of words."""

import base64
import json
import os
import random
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from mlxlab.data.text.dataset import TextEncoder
from mlxlab.data.text.dataset import restore as restore_text
from mlxlab.data.tokenizers import tokenizer as module
from mlxlab.data.tokenizers.bpe import MAX_WORD_LENGTH as MAX_TRAINED_LENGTH
from mlxlab.data.tokenizers.bpe import train_bpe
from mlxlab.data.tokenizers.fit import CharTokenizerTrainer, Corpus
from mlxlab.data.tokenizers.tokenizer import (
    COVERED,
    MAX_WORD_LENGTH,
    STEPS,
    WORD,
    Tokenizer,
    load_tokenizer,
)
from mlxlab.errors import DataError, InputNotFoundError, NotAllowedError
from support.titanic import real_rows

TEXTS = [row.name for row in real_rows()[:300]]
TOKENIZER = train_bpe(TEXTS, 600, 2)
COMMON = "ab cd'strevlm \n\t\r\x1c\x1f\x0012_-.! \u00a0\u2028\u3000"
STRANGE = ["", " ", "  two  spaces ", "tab\tand\nbreak\r\n", "e\u0301", "\u202eright to left"]
STRANGE += ["<pad>", "<bos>a<eos>", "a <mask> b", "Zo\u00eb \u2603 \U0001f6a2", "\x00\x7f", "$age"]


@pytest.mark.parametrize("on_unknown", [None, "bytes"])
def test_decoding_gives_the_text_back_and_no_text_holds_a_special_token(on_unknown, tmp_path):
    tokenizer = TOKENIZER if on_unknown is None else fit_characters(tmp_path)
    for text in [*TEXTS[:20], *STRANGE]:
        ids = tokenizer.encode(text, special=False)
        assert tokenizer.decode(tokenizer.encode(text)) == tokenizer.decode(ids) == text
        assert not {0, 1, 2, 3} & set(ids)
        assert max(ids, default=0) < tokenizer.vocab_size


def test_a_long_text_is_truncated_before_its_end_token():
    full, truncated = (
        TOKENIZER.encode_batch(["a b c d e f g h"], length)[0].tolist() for length in (100, 6)
    )
    assert len(truncated) == 6
    assert truncated[:5] == full[:5]
    assert truncated[-1] == TOKENIZER.eos_id


@pytest.mark.parametrize("character", ["a", "\u4e2d", "7", "\0", " "])
def test_training_splits_long_words_and_encoding_does_not(character):
    word = character * 50_000
    # It merges whole words, which have no other pairs.
    trained = train_bpe([word, f"b {word}"], 300, 2)
    longest = MAX_TRAINED_LENGTH * len(character.encode())
    assert max(map(len, trained.inner.get_vocab())) <= longest
    assert len(trained.inner.pre_tokenizer.pre_tokenize_str(word)) == 1
    assert trained.decode(trained.encode(word)) == word


@pytest.mark.parametrize(
    "characters", [COMMON, "".join(map(chr, range(0x3000)))], ids=["common", "wide"]
)
def test_training_splits_other_words_as_the_trained_tokenizer_does(characters):
    generator = random.Random(0)
    texts = ["".join(generator.choices(characters, k=generator.randrange(80))) for _ in range(1000)]
    texts += ["ab" * (MAX_TRAINED_LENGTH // 2), " " * MAX_TRAINED_LENGTH, *TEXTS]
    trained = train_bpe(texts, 1200, 2)
    plain = tokenizers.Tokenizer(models.BPE())
    plain.pre_tokenizer = trained.inner.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        min_frequency=2,
        special_tokens=["<pad>", "<bos>", "<eos>", "<mask>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    plain.train_from_iterator(texts, trainer)
    assert json.loads(plain.to_str())["model"] == json.loads(trained.inner.to_str())["model"]


def test_training_is_deterministic_across_processes():
    code = (
        "import json, sys; from mlxlab.data.tokenizers.bpe import train_bpe\n"
        "print(train_bpe(json.load(sys.stdin), 600, 2).fingerprint)"
    )
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "1", "PATH": ""}
    command = [sys.executable, "-c", code]
    printed = subprocess.check_output(command, env=environment, input=json.dumps(TEXTS), text=True)
    assert printed.strip() == TOKENIZER.fingerprint


def with_prefix(prefix):
    file = json.loads(TOKENIZER.inner.to_str())
    file["model"]["continuing_subword_prefix"] = prefix
    return json.dumps(file).encode()


def test_a_missing_or_damaged_file_is_named(tmp_path):
    with pytest.raises(InputNotFoundError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)
    contents = [b"", b"{}", b"[1]", b"\xff\xfe", b'{"version": "9"}', b'{"model": {"type": "No"}}']
    # At the last one the library panics.
    for content in [*contents, with_prefix("longer than the tokens that are merged")]:
        (tmp_path / "tokenizer.json").write_bytes(content)
        with pytest.raises(DataError) as caught:
            load_tokenizer(tmp_path)
        assert "\n" not in str(caught.value)


def hostile(**changes):
    return json.dumps(json.loads(TOKENIZER.inner.to_str()) | changes)


def replace(pattern, content):
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


def charsmap(text):
    return base64.b64encode((4).to_bytes(4, "little") + b"trie" + text.encode() + b"\0").decode()


DOUBLED = [replace("a", "aa")] * 40
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
TEXT = {"Sequence": {"id": "A", "type_id": 0}}
GROWING = {
    "normalizer": {"type": "Sequence", "normalizers": DOUBLED},
    "nested": {"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": DOUBLED}]},
    "pattern": {"type": "Replace", "pattern": {"Regex": ""}, "content": "a" * 1000},
    "charsmap": {"type": "Precompiled", "precompiled_charsmap": charsmap("x" * 1000)},
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTE_LEVEL] * 40},
    "decoder": {"type": "Sequence", "decoders": DOUBLED},
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [TEXT] * 1000,
        "pair": [],
        "special_tokens": {},
    },
}


@pytest.mark.parametrize("name", GROWING)
def test_a_tokenizer_that_makes_texts_long_is_refused_before_it_is_built(name, tmp_path):
    """The library would take gigabytes and then abort the process."""
    step = name if name in STEPS else "normalizer"
    (tmp_path / "tokenizer.json").write_text(hostile(**{step: GROWING[name]}))
    with pytest.raises(DataError, match=rf"tokenizer\.json: .*{step}"):
        load_tokenizer(tmp_path)


def test_an_id_above_every_vocabulary_is_refused(tmp_path):
    words = {"type": "WordLevel", "vocab": {"a": 0, "b": 2**32 - 2}, "unk_token": "a"}
    (tmp_path / "tokenizer.json").write_text(hostile(model=words, added_tokens=[]))
    with pytest.raises(DataError, match="expected at most"):
        load_tokenizer(tmp_path)


def wordpiece():
    """A tokenizer as BERT's is: another order of special ids, truncation and padding switched on in the file."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = ["male", "female", "third", "class", "passenger", "a", ",", "."]
    vocabulary = {word: number for number, word in enumerate([*special, *words])}
    inner = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    inner.add_special_tokens(special)
    inner.enable_truncation(4)
    inner.enable_padding(length=20)
    return inner


def fit_characters(cache, texts=TEXTS, on_unknown="bytes"):
    trainer = CharTokenizerTrainer(on_unknown=on_unknown, train_examples=10_000, path=None)
    return trainer.fit(Corpus(texts, "corpus", cache, 1_000_000, 128)).tokenizer


def test_characters_have_a_token_each_in_the_order_of_code_points(tmp_path):
    tokenizer = fit_characters(tmp_path, ["cab", "bad"], "error")
    assert tokenizer.vocab_size == 4 + 4
    assert tokenizer.encode("abcd") == [1, 4, 5, 6, 7, 2]
    assert fit_characters(tmp_path, ["cab", "bad"]).vocab_size == 4 + 4 + 256


def test_an_unknown_character_is_refused_and_never_dropped(tmp_path):
    tokenizer = fit_characters(tmp_path, ["abc"], "error")
    tokenizer.save(tmp_path)
    for refusing in (tokenizer, load_tokenizer(tmp_path)):
        with pytest.raises(DataError, match=r"U\+00E9"):
            refusing.encode("ab\u00e9")
        with pytest.raises(DataError, match=r"U\+00E9"):
            refusing.encode_documents(["ab", "ab\u00e9"])


def test_the_bytes_of_tokens_sum_to_the_bytes_of_the_text(tmp_path):
    refusing = fit_characters(tmp_path, [*TEXTS, *STRANGE], "error")
    for tokenizer in (TOKENIZER, refusing, fit_characters(tmp_path)):
        sizes = tokenizer.token_bytes
        assert len(sizes) == tokenizer.vocab_size
        assert sizes[:4] == (0, 0, 0, 0)
        for text in [*TEXTS[:20], *STRANGE]:
            assert sum(sizes[token] for token in tokenizer.encode(text)) == len(text.encode())


def test_no_token_bytes_are_reported_where_tokens_lose_bytes():
    assert Tokenizer(wordpiece()).token_bytes == ()
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "p"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    inner = tokenizers.Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    spaces = normalizers.Replace(" ", "\u2581")
    inner.normalizer = spaces  # as newer SentencePiece models do
    inner.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    assert sum(Tokenizer(inner).token_bytes) == 256 + 1 + 1 + len("<unk>")
    # A space too many is at the front of each text.
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), spaces])
    assert Tokenizer(inner).token_bytes == ()


def test_what_a_language_model_needs_comes_back(tmp_path):
    encoder = TextEncoder(TOKENIZER, masked=True, seq_len=64)
    encoder.save(tmp_path, "data")
    again = restore_text(tmp_path)
    assert (again.task, again.seq_len) == (encoder.task, 64)
    assert again.tokenizer.fingerprint == TOKENIZER.fingerprint


def test_a_tokenizer_other_than_that_of_the_language_model_is_refused(tmp_path):
    TextEncoder(TOKENIZER, masked=False, seq_len=64).save(tmp_path, "data")
    train_bpe(TEXTS, 500, 2).save(tmp_path)
    with pytest.raises(NotAllowedError, match="not the one that the model was trained with"):
        restore_text(tmp_path)
    (tmp_path / "data.json").write_text("{}")
    with pytest.raises(DataError, match=r"data\.json: .* is missing"):
        restore_text(tmp_path)


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
    texts = ["", *draw(alphabet, 1500), "a" * 1000, "it's they'll I'D we've"]
    expected = uncached(tokenizer, texts)
    for _ in range(2):  # First nothing is cached, then every word is.
        assert [ids.tolist() for ids in tokenizer.encode_documents(texts)] == expected


def test_covered_characters_are_split_as_by_the_tokenizer(tokenizer):
    characters = [each for each in map(chr, range(0x3000)) if COVERED.fullmatch(each)]
    split = tokenizer.inner.pre_tokenizer.pre_tokenize_str
    for character, context in product(characters, ("a", "1", " ", ".", "'", "")):
        text = f"{context}{character}{context}"
        assert WORD.findall(text) == [text[start:end] for _, (start, end) in split(text)]
    assert len(characters) > 350


def test_the_cache_is_bounded(tokenizer, monkeypatch):
    monkeypatch.setattr(module, "MAX_WORDS", 50)
    cache, sizes = tokenizer._words, []
    for number in range(40):
        texts = [f"w{chr(97 + number % 26)}{number} " + "x" * 100, "b" * number]
        assert encode(cache, texts) == uncached(tokenizer, texts)
        sizes.append(len(cache.ids))
        assert max(map(len, cache.ids), default=0) <= MAX_WORD_LENGTH
    assert 0 < max(sizes) <= 50


def test_a_tokenizer_with_another_word_pattern_is_not_cached(tokenizer):
    inner = tokenizers.Tokenizer.from_str(tokenizer.inner.to_str())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    texts = draw(ASCII, 100)
    cache = Tokenizer(inner)._words
    assert not cache.is_usable
    assert encode(cache, texts) == uncached(Tokenizer(inner), texts)

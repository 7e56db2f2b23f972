"""Generation: the cache changes nothing, rows do not see each other, text comes in whole characters."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map

from mlxlab.backend import blas_threads
from mlxlab.data.tokenizers.bpe import train_bpe
from mlxlab.errors import ConfigError
from mlxlab.inference.generate import GenerationConfig, StreamingDetokenizer, generate, window_start
from mlxlab.models.adapters.apply import insert
from mlxlab.models.bert import Bert
from mlxlab.models.layers import KVCache
from mlxlab.models.model import Model, build_head
from mlxlab.models.options import LoRA
from mlxlab.models.rope import Llama3Scaling
from mlxlab.models.transformer import Transformer
from mlxlab.run import report

VOCABULARY = 300
SHAPE = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_layers": 2, "num_heads": 4}
SHAPE["intermediate_size"] = 48
SCALED = {"rope_scaling": Llama3Scaling(factor=4.0, original_max_position_embeddings=16)}
KINDS = {
    "rope": {},
    "normalized": {"qk_norm": True, "attention_bias": "all", "head_dim": 12, **SCALED},
    "grouped": {"num_kv_heads": 1, "tie_embeddings": False},
    "learned": {
        "position_embedding": "learned",
        "norm_type": "layer",
        "mlp_type": "gelu",
        "max_position_embeddings": 24,
    },
    "adapted": {"adapter": LoRA(rank=2, targets=["*"], dora=True)},
}
GREEDY = GenerationConfig(temperature=0.0)
DRAWN = GenerationConfig(temperature=1.5, top_k=0)


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["the cat sat on the mat, the dog sat on the log"] * 3, VOCABULARY, 1)


def new_model(backbone, kind="language_modelling", adapter=None):
    model = Model(backbone, build_head(backbone, kind=kind, num_classes=2))
    if adapter is not None:
        insert(model, adapter, seed=0)
    model.eval()
    mx.random.seed(1)
    model.update(tree_map(lambda w: w + 0.3 * mx.random.normal(w.shape), model.parameters()))
    mx.eval(model.parameters())
    return model


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    options = {"max_position_embeddings": 64, "adapter": None} | KINDS[request.param]
    adapter = options.pop("adapter")
    return new_model(Transformer(**(SHAPE | options)), adapter=adapter)


@pytest.fixture(scope="module")
def rope():
    mx.random.seed(2)
    return new_model(Transformer(**SHAPE))


def test_samples_of_a_slow_model_have_some_tokens(rope, tokenizer, monkeypatch):
    monkeypatch.setattr(report, "SECONDS", 0.0)
    for each in report.generate_samples(rope, tokenizer, prompts(3, 5), 60):
        assert len(tokenizer.encode(each.text)) >= report.MIN_TOKENS // 2 or each.end == "end"
        assert each.text


def prompts(*lengths):
    rng = np.random.default_rng(3)
    return [rng.integers(4, VOCABULARY, length).tolist() for length in lengths]


def tokens_of(model, tokenizer, rows, sampling=GREEDY, **expected):
    """The new tokens of each row, read from where they are drawn."""
    taken = {}

    class Spy:
        eos_id = vocabulary = None

        @staticmethod
        def decode(ids):
            return "".join(chr(0x4E00 + i) for i in ids)  # a character a token

    for piece in generate(model, Spy(), rows, replace(sampling, **({"max_tokens": 12} | expected))):
        taken.setdefault(piece.row, []).extend(ord(c) - 0x4E00 for c in piece.text)
    return [taken[i] for i in range(len(rows))]


def argmax_loop(model, prompt, count, context):
    """Without a cache: the whole window again for each token."""
    tokens, start = list(prompt), max(0, len(prompt) - context)
    for _ in range(count):
        start = window_start(start, len(tokens), context)
        window = mx.array([tokens[start:]])
        tokens.append(int(model(window, mx.ones(window.shape, dtype=mx.int32))[0, -1].argmax()))
    return tokens[len(prompt) :]


def test_greedy_with_a_cache_is_the_argmax_loop_without(model, tokenizer):
    (prompt,) = prompts(7)
    assert tokens_of(model, tokenizer, [prompt]) == [argmax_loop(model, prompt, 12, 24)]


def test_states_with_a_cache_are_those_without(model):
    """In any cut, and padded on the left: the logits agree, not only their maximum."""
    rows = prompts(9, 5)
    whole = [
        np.array(model(mx.array([row]), mx.ones((1, len(row)), dtype=mx.int32)))[0] for row in rows
    ]
    cache = KVCache(2, [0, 4])
    padded = mx.array([rows[0], [0] * 4 + rows[1]])
    parts = [model.backbone.extend(padded[:, a:b], cache) for a, b in ((0, 6), (6, 7), (7, 9))]
    found = np.array(model.head(mx.concatenate(parts, axis=1), model.backbone.embedding))
    np.testing.assert_allclose(found[0], whole[0], atol=2e-5 * np.abs(whole[0]).max())
    np.testing.assert_allclose(found[1, 4:], whole[1], atol=2e-5 * np.abs(whole[1]).max())


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_a_batch_gives_what_one_by_one_gives(model, tokenizer, sampling):
    rows = prompts(3, 11, 1, 7)
    rows.append(rows[3])
    together = tokens_of(model, tokenizer, rows, sampling, batch_size=5)
    assert together == tokens_of(model, tokenizer, rows, sampling, batch_size=1)
    assert together == tokens_of(model, tokenizer, rows, sampling, batch_size=2)
    assert (together[3] == together[4]) == (sampling is GREEDY), "the draws of a row are its own"


@pytest.mark.parametrize("context", [4, 5, 16])
def test_a_full_window_forgets_its_older_half_in_each_row_by_itself(model, tokenizer, context):
    rows = prompts(2, 9, 20)
    alone = [
        argmax_loop(model, row, 20, context) for row in rows
    ]  # the longest window is full more than twice
    assert tokens_of(model, tokenizer, rows, max_tokens=20, context_length=context) == alone


def test_the_window_is_never_longer_than_the_context_nor_empty():
    for context in (2, 3, 8):
        start = 0
        for length in range(1, 60):
            start = window_start(start, length, context)
            assert 1 <= length - start <= context
        assert context + 1 - window_start(0, context + 1, context) == context // 2


def test_each_row_counts_its_positions_from_its_own_first_token():
    cache = KVCache(1, [0, 4])
    cache.length = 9
    assert cache.offset.tolist() == [9, 5]
    assert cache.position_ids(2, 99).tolist() == [[9, 10], [5, 6]]
    cache.keep([1])
    assert cache.offset == 5


def test_a_context_beyond_learned_positions_is_refused(tokenizer):
    options = {"position_embedding": "learned", "max_position_embeddings": 24}
    learned = new_model(Transformer(**SHAPE, **options))
    with pytest.raises(ConfigError, match="positions for 24"):
        tokens_of(learned, tokenizer, prompts(3), context_length=25)
    with pytest.raises(ValueError, match="24"):
        learned.backbone.extend(mx.zeros((1, 25), dtype=mx.int32), KVCache(1, [0]))


def test_the_same_seed_gives_the_same_text_and_another_another(rope, tokenizer):
    drawn = [tokens_of(rope, tokenizer, prompts(4), DRAWN, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_rows_end_by_themselves(rope, tokenizer):
    """At the end token, a stop string or the length; the others go on as if alone."""
    rows = prompts(5, 6, 7)
    free = tokens_of(rope, tokenizer, rows)

    class Ending:
        eos_id, vocabulary = free[0][3], None

        @staticmethod
        def decode(ids):
            return "".join(chr(0x4E00 + i) for i in ids)

    stop = "".join(chr(0x4E00 + i) for i in free[1][4:6])
    pieces = list(generate(rope, Ending(), rows, replace(GREEDY, max_tokens=12, stop=[stop])))
    texts = ["".join(piece.text for piece in pieces if piece.row == row) for row in range(3)]
    ends = {piece.row: piece.end for piece in pieces if piece.end}
    for row, tokens in enumerate(free):
        end = "length"
        if Ending.eos_id in tokens:
            end = "end token"
            tokens = tokens[: tokens.index(Ending.eos_id)]
        expected = "".join(chr(0x4E00 + i) for i in tokens)
        if stop in expected:
            end = "stop"
        assert (texts[row], ends[row]) == (expected.partition(stop)[0], end)
    assert {ends[0], ends[1]} == {"end token", "stop"}


def test_who_cannot_generate_says_so(tokenizer):
    masked, classifier = new_model(Bert(**SHAPE)), new_model(Transformer(**SHAPE), "classification")
    for wrong, word in ((masked, "masked"), (classifier, "classifier")):
        with pytest.raises(ConfigError, match=word):
            next(generate(wrong, tokenizer, prompts(3), GREEDY))


TEXTS = ["plain"]
TEXTS += ["Zo\u00eb \u2603 \U0001f6a2 na\u00efve \U0001f468\u200d\U0001f469\u200d\U0001f467"]
TEXTS += ["\ufffd stays", ""]


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_in_whole_characters_and_sums_to_itself(tokenizer, text):
    stream = StreamingDetokenizer(tokenizer)
    pieces = [stream.push(token) for token in tokenizer.encode(text, special=False)] + [
        stream.finish()
    ]
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces) or "\ufffd" in text


def test_bytes_that_are_no_character_come_as_the_decoder_gives_them(tokenizer):
    byte = {
        value: tokenizer.inner.token_to_id(piece)
        for piece, value in (("\u00e2", 0xE2), ("\u013a", 0x98), ("a", 97))
    }
    ids = [byte[0xE2], byte[97], byte[0xE2], byte[0x98]]
    stream = StreamingDetokenizer(tokenizer)
    assert "".join([*map(stream.push, ids), stream.finish()]) == tokenizer.decode(ids)


def test_a_stop_string_is_found_across_tokens_and_never_shown(tokenizer):
    text = "the cat sat on the mat. END of it"
    ids = tokenizer.encode(text, special=False)
    for stop in ("END", " on the", "t. E", "the", "sat on the mat"):
        stream = StreamingDetokenizer(tokenizer, ["never", stop])
        shown = ""
        for token in ids:
            shown += stream.push(token)
            assert text.partition(stop)[0].startswith(shown)
            if stream.ended:
                break
        assert stream.ended
        assert shown + stream.finish() == text.partition(stop)[0]


def test_what_only_began_a_stop_string_is_shown_in_the_end(tokenizer):
    stream = StreamingDetokenizer(tokenizer, ["mats", "END"])
    shown = "".join(map(stream.push, tokenizer.encode("the mat EN", special=False)))
    assert shown + stream.finish() == "the mat EN"
    assert shown == "the mat "


def test_the_benchmark_compares_with_and_without_a_cache(monkeypatch):
    from benchmarks.models import generation

    monkeypatch.setattr(generation, "TOKENS", 1)
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in generation.generation("nano", 1).splitlines()
    ]
    assert [row[0] for row in rows[4:]] == [
        "cache, 1 row",
        "no cache, 1 row",
        "cache, 8 rows",
        "no cache, 8 rows",
    ]
    assert [row[3] for row in rows[5::2]] == ["1.0", "1.0"]


def test_two_blas_threads_compute_the_prompt_and_one_each_further_token(
    rope, tokenizer, monkeypatch
):
    used, extend = [], Transformer.extend

    def counted(self, tokens, cache):
        used.append(blas_threads())
        return extend(self, tokens, cache)

    monkeypatch.setattr(Transformer, "extend", counted)
    before = blas_threads(2)
    try:
        if blas_threads() != 2:
            pytest.skip("one OpenBLAS thread")
        tokens_of(rope, tokenizer, prompts(5), max_tokens=3)
        assert used == [2, 1, 1]
        assert blas_threads() == 2
    finally:
        blas_threads(before)

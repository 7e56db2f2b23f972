"""Generation: the cache changes nothing, rows do not see each other, text comes in whole characters."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map

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

VOCABULARY = 300
SHAPE = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_layers": 2, "num_heads": 4}
SHAPE["intermediate_size"] = 48
SCALED = {"rope_scaling": Llama3Scaling(factor=4.0, original_max_position_embeddings=16)}
LEARNED = {"position_embedding": "learned", "norm_type": "layer", "mlp_type": "gelu"}
LEARNED["max_position_embeddings"] = 24
KINDS = {
    "rope": {},
    "normalized": {"qk_norm": True, "attention_bias": "all", "head_dim": 12, **SCALED},
    "grouped": {"num_kv_heads": 1, "tie_embeddings": False},
    "learned": LEARNED,
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


def prompts(*lengths):
    rng = np.random.default_rng(3)
    return [rng.integers(4, VOCABULARY, length).tolist() for length in lengths]


class Spy:
    """A tokenizer of a character a token."""

    eos_id = vocabulary = None

    @staticmethod
    def decode(ids):
        return "".join(chr(0x4E00 + i) for i in ids)


def tokens_of(model, tokenizer, rows, sampling=GREEDY, **expected):
    """The new tokens of each row, read from where they are drawn."""
    taken = {}
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
    ending, stop = Spy(), Spy.decode(free[1][4:6])
    ending.eos_id = free[0][3]
    pieces = list(generate(rope, ending, rows, replace(GREEDY, max_tokens=12, stop=[stop])))
    texts = ["".join(piece.text for piece in pieces if piece.row == row) for row in range(3)]
    ends = {piece.row: piece.end for piece in pieces if piece.end}
    for row, tokens in enumerate(free):
        end = "length"
        if ending.eos_id in tokens:
            end = "end token"
            tokens = tokens[: tokens.index(ending.eos_id)]
        expected = Spy.decode(tokens)
        if stop in expected:
            end = "stop"
        assert (texts[row], ends[row]) == (expected.partition(stop)[0], end)
    assert {ends[0], ends[1]} == {"end token", "stop"}


def test_who_cannot_generate_says_so(tokenizer):
    masked, classifier = new_model(Bert(**SHAPE)), new_model(Transformer(**SHAPE), "classification")
    for wrong, word in ((masked, "masked"), (classifier, "classifier")):
        with pytest.raises(ConfigError, match=word):
            next(generate(wrong, tokenizer, prompts(3), GREEDY))


TEXTS = ["plain", "\ufffd stays", ""]
TEXTS += ["Zo\u00eb \u2603 \U0001f6a2 na\u00efve \U0001f468\u200d\U0001f469\u200d\U0001f467"]


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_in_whole_characters_and_sums_to_itself(tokenizer, text):
    stream = StreamingDetokenizer(tokenizer)
    pieces = [stream.push(token) for token in tokenizer.encode(text, special=False)] + [
        stream.finish()
    ]
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces) or "\ufffd" in text


def test_bytes_that_are_no_character_come_as_the_decoder_gives_them(tokenizer):
    pieces = ("\u00e2", "a", "\u00e2", "\u013a")  # 0xE2 begins a character, 0x98 continues one
    ids = [*map(tokenizer.inner.token_to_id, pieces)]
    stream = StreamingDetokenizer(tokenizer)
    assert "".join([*map(stream.push, ids), stream.finish()]) == tokenizer.decode(ids)


@pytest.mark.parametrize("stop", ["END", " on the", "t. E", "the", "sat on the mat", "of items"])
def test_a_stop_string_is_found_across_tokens_and_never_shown(tokenizer, stop):
    text = "the cat sat on the mat. END of it"
    stream, shown = StreamingDetokenizer(tokenizer, ["never", stop]), ""
    for token in tokenizer.encode(text, special=False):
        shown += stream.push(token)
        assert text.partition(stop)[0].startswith(shown)
        if stream.ended:
            break
    assert bool(stream.ended) == (stop in text)
    assert shown + stream.finish() == text.partition(stop)[0]

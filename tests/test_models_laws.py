"""Laws that every model keeps, and exact sizes."""

import json

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlxlab.errors import DataFault, InputMissing
from mlxlab.models.bert import Bert
from mlxlab.models.cnn_hybrid import CnnHybrid
from mlxlab.models.heads import head_for
from mlxlab.models.layers import rotate
from mlxlab.models.model import Model, count_parameters
from mlxlab.models.pretrained import load_bert, load_llama
from mlxlab.models.transformer import Transformer

SMALL = dict(vocab_size=50, width=32, num_layers=2, num_heads=4, feed_forward=48)  # noqa: C408


def bert(**changes):
    return Bert(**(SMALL | {"max_length": 64} | changes))


def hybrid(**changes):
    return CnnHybrid(bert(), [2, 3, 4, 5], 16, [1, 2, 4], **changes)


TRUNKS = {
    "bert": bert,
    "bert-rope-geglu-pre": lambda: bert(rope_base=1e4, mlp="geglu", pre_norm=True),
    "hybrid": hybrid,
    "hybrid-concat": lambda: hybrid(fusion="concat", highway=False),
    "transformer": lambda: Transformer(**SMALL),
    "transformer-grouped-untied": lambda: Transformer(**SMALL, num_kv_heads=2, tie_embeddings=False),
    "transformer-old": lambda: Transformer(**SMALL, norm="layer", mlp="gelu", rope_base=None, max_length=64),
}
KINDS = ["classification", "language_modelling"]


def new(name, kind="classification", dropout=0.0):
    mx.random.seed(0)
    trunk = TRUNKS[name]()
    model = Model(trunk, head_for(trunk, kind=kind, num_classes=3, dropout=dropout))
    # Larger weights than at the start: a law that holds for tiny numbers only would pass unseen.
    model.update(nn.utils.tree_map(lambda w: w * 3 if w.ndim > 1 else w, model.parameters()))
    mx.eval(model.parameters())
    return model.eval()


def tokens_and_mask(rows=3, length=9, seed=0):
    tokens = np.random.default_rng(seed).integers(0, 50, (rows, length)).astype(np.int32)
    return mx.array(tokens), mx.ones((rows, length), dtype=mx.int32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TRUNKS)
@pytest.mark.parametrize("amount", [1, 7, 40])
def test_padding_changes_nothing(name, kind, amount):
    model = new(name, kind)
    model.eval()
    tokens, mask = tokens_and_mask()
    more = mx.full((3, amount), 7, dtype=mx.int32)
    padded = model(mx.concatenate([tokens, more], axis=1), mx.concatenate([mask, mx.zeros_like(more)], axis=1))
    if kind == "language_modelling":
        padded = padded[:, : tokens.shape[1]]
    np.testing.assert_allclose(np.array(model(tokens, mask)), np.array(padded), atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TRUNKS)
def test_every_parameter_receives_a_gradient(name, kind):
    model = new(name, kind)
    tokens, mask = tokens_and_mask(rows=4, length=16)
    targets = mx.array([0, 1, 2, 1]) if kind == "classification" else tokens

    def loss(model):
        return nn.losses.cross_entropy(model(tokens, mask), targets).mean()

    _, gradients = nn.value_and_grad(model, loss)(model)
    without = [path for path, g in tree_flatten(gradients) if not np.abs(np.array(g)).max() > 0]
    # The key's bias moves all scores of a query alike: softmax does not see it.
    assert [path for path in without if not path.endswith("key.bias")] == []


def test_each_kernel_and_each_dilation_owns_parameters():
    paths = {path for path, _ in tree_flatten(hybrid().parameters())}
    for i in range(4):
        assert f"branches.{i}.conv.weight" in paths
    for i in range(3):
        assert f"dilated.convs.{i}.weight" in paths
    assert not any("dilated" in p for p, _ in tree_flatten(CnnHybrid(bert(), [3], 16, []).parameters()))


@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
def test_a_branch_gives_a_state_per_place_for_even_kernels_too(kernel):
    model = CnnHybrid(bert(), [kernel], 16, [])
    assert model(*tokens_and_mask()).shape == (3, 9, 32 + 16)


@pytest.mark.parametrize("name", [name for name in TRUNKS if "transformer" in name])
def test_a_decoder_does_not_look_ahead(name):
    model = new(name, "language_modelling")
    tokens, mask = tokens_and_mask()
    changed = mx.concatenate([tokens[:, :5], (tokens[:, 5:] + 1) % 50], axis=1)
    a, b = (np.array(model(t, mask)) for t in (tokens, changed))
    np.testing.assert_allclose(a[:, :5], b[:, :5], atol=1e-6)
    assert np.abs(a[:, 5:] - b[:, 5:]).max() > 1e-3


@pytest.mark.parametrize("name", ["bert-rope-geglu-pre", "transformer"])
def test_documents_of_one_row_do_not_see_each_other(name):
    model = new(name, "language_modelling")
    tokens, _ = tokens_and_mask()
    mask = mx.array([[1] * 4 + [2] * 5] * 3)
    changed = mx.concatenate([tokens[:, :4], (tokens[:, 4:] + 1) % 50], axis=1)
    a, b = (np.array(model(t, mask))[:, :4] for t in (tokens, changed))
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_decoder_classifies_by_the_last_real_token():
    model = new("transformer")
    tokens, mask = tokens_and_mask()
    short = mx.concatenate([mask[:, :5], mx.zeros((3, 4), dtype=mx.int32)], axis=1)
    np.testing.assert_allclose(np.array(model(tokens, short)), np.array(model(tokens[:, :5], mask[:, :5])), atol=1e-5)


@pytest.mark.parametrize("name", TRUNKS)
def test_a_row_of_padding_gives_numbers(name):
    tokens, mask = tokens_and_mask()
    assert np.isfinite(np.array(new(name)(tokens, mx.zeros_like(mask)))).all()


def test_dropout_acts_while_training_only():
    model = new("bert", dropout=0.1)
    tokens, mask = tokens_and_mask()
    model.train()
    assert np.abs(np.array(model(tokens, mask) - model(tokens, mask))).max() > 0
    model.eval()
    np.testing.assert_array_equal(np.array(model(tokens, mask)), np.array(model(tokens, mask)))


def test_attention_with_and_without_the_fused_path_is_the_same():
    model = bert(dropout=1e-9)
    tokens, mask = tokens_and_mask()
    model.train()
    slow = np.array(model(tokens, mask))
    model.eval()
    np.testing.assert_allclose(slow, np.array(model(tokens, mask)), atol=1e-5)


def test_rotation_keeps_norms_and_sees_distances_only():
    x = mx.random.normal((1, 1, 12, 16), key=mx.random.key(0))
    turned = rotate(x, 1e4)
    np.testing.assert_allclose(
        np.linalg.norm(np.array(turned), axis=-1), np.linalg.norm(np.array(x), axis=-1), rtol=1e-5
    )
    same = rotate(mx.broadcast_to(x[:, :, :1], x.shape), 1e4)[0, 0]
    products = np.array(same @ same.T)
    for distance in (1, 5):
        np.testing.assert_allclose(np.diagonal(products, distance), products[0, distance], rtol=1e-4)


def test_a_row_longer_than_the_positions_is_refused():
    with pytest.raises(ValueError, match="65 tokens in a row"):
        bert()(*tokens_and_mask(length=65))


SIZES = {
    "nano": (128, 6, 4, 512),
    "tiny": (256, 8, 8, 1024),
    "small": (512, 12, 8, 2048),
    "medium": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "xlarge": (1280, 32, 20, 5120),
}
EXACT = {  # untied, tied, BERT classifier, branches
    "nano": (5_670_528, 3_622_528, 3_320_450, 601_729),
    "tiny": (16_584_960, 12_488_960, 10_612_482, 1_044_097),
    "small": (66_728_448, 58_536_448, 46_548_482, 1_928_833),
    "medium": (137_841_408, 125_553_408, 98_330_882, 2_813_569),
    "large": (435_471_360, 419_087_360, 320_273_410, 3_698_305),
    "xlarge": (879_904_000, 859_424_000, 652_460_802, 4_583_041),
}


def shape(size, **more):
    return dict(zip(("width", "num_layers", "num_heads", "feed_forward"), SIZES[size], strict=True)) | more


@pytest.mark.parametrize("size", SIZES)
def test_parameters_are_counted_exactly_and_without_memory(size):
    before = mx.get_active_memory()
    wanted = dict(zip(("untied", "tied", "bert", "branches"), EXACT[size], strict=True))
    for tied in (False, True):
        trunk = Transformer(**shape(size), vocab_size=16_000, tie_embeddings=tied)
        assert (
            count_parameters(Model(trunk, head_for(trunk, kind="language_modelling")))
            == wanted["tied" if tied else "untied"]
        )
    trunk = Bert(**shape(size), vocab_size=16_000)
    assert count_parameters(Model(trunk, head_for(trunk, kind="classification", num_classes=2))) == wanted["bert"]
    whole = CnnHybrid(trunk, [2, 3, 4, 5], 128, [1, 2, 4])
    assert count_parameters(whole) - count_parameters(trunk) == wanted["branches"]
    assert mx.get_active_memory() - before < 1 << 20


def test_the_count_is_that_of_a_real_instance():
    model = Bert(**shape("nano"), vocab_size=1000)
    mx.eval(model.parameters())
    assert count_parameters(model) == sum(np.array(leaf).size for _, leaf in tree_flatten(model.parameters()))


def write_folder(folder, model, names, config):
    arrays = {theirs: dict(tree_flatten(model.parameters()))[ours] for theirs, ours in names.items()}
    mx.save_safetensors(str(folder / "model.safetensors"), arrays)
    (folder / "config.json").write_text(json.dumps(config))


def bert_names(model, prefix="", gamma=False):
    names = {}
    pairs = [("feed_forward.up", "intermediate.dense"), ("feed_forward.down", "output.dense")]
    pairs += [("attention.out", "attention.output.dense"), ("attention_norm", "attention.output.LayerNorm")]
    pairs += [("feed_forward_norm", "output.LayerNorm")]
    pairs += [(f"attention.{x}", f"attention.self.{x}") for x in ("query", "key", "value")]
    for path, _ in tree_flatten(model.parameters()):
        theirs = path
        if path.startswith("layers."):
            for ours, other in pairs:
                theirs = theirs.replace(f".{ours}.", f".{other}.") if f".{ours}." in theirs else theirs
            theirs = theirs.replace("layers.", "encoder.layer.")
        theirs = (
            theirs.replace("type_embedding.", "embeddings.token_type_embeddings.")
            if path.startswith("type")
            else theirs
        )
        theirs = (
            theirs.replace("position_embedding.", "embeddings.position_embeddings.")
            if path.startswith("pos")
            else theirs
        )
        theirs = theirs.replace("embedding.", "embeddings.word_embeddings.") if path.startswith("embedding") else theirs
        theirs = theirs.replace("norm.", "embeddings.LayerNorm.") if path.startswith("norm.") else theirs
        theirs = theirs.replace("pooler.", "pooler.dense.") if path.startswith("pooler") else theirs
        if gamma and "LayerNorm" in theirs:
            theirs = theirs.replace("weight", "gamma").replace("bias", "beta")
        names[prefix + theirs] = path
    return names


BERT_CONFIG = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "vocab_size": 50,
}


@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize("gamma", [False, True])
def test_hugging_face_bert_weights_load(tmp_path, prefix, gamma):
    model = new("bert").trunk
    write_folder(tmp_path, model, bert_names(model, prefix, gamma), BERT_CONFIG)
    loaded = load_bert(str(tmp_path), SMALL | {"vocab_size": 40, "dropout": 0.0})
    loaded.eval()
    np.testing.assert_array_equal(np.array(loaded(*tokens_and_mask())), np.array(model(*tokens_and_mask())))


def test_a_missing_weight_fails_by_name(tmp_path):
    model = bert()
    names = {k: v for k, v in bert_names(model).items() if "pooler" not in k}
    write_folder(tmp_path, model, names, BERT_CONFIG)
    with pytest.raises(DataFault, match=r"pooler\.weight missing"):
        load_bert(str(tmp_path), SMALL)
    with pytest.raises(InputMissing, match="no such folder"):
        load_bert(str(tmp_path / "nowhere"), SMALL)


def test_llama_weights_load(tmp_path):
    model = new("transformer-grouped-untied").trunk
    back = {"query": "q", "key": "k", "value": "v", "out": "o"}
    names = {}
    for path, _ in tree_flatten(model.parameters()):
        theirs = path.replace("attention_norm", "input_layernorm").replace(
            "feed_forward_norm", "post_attention_layernorm"
        )
        for ours, letter in back.items():
            theirs = theirs.replace(f"attention.{ours}.", f"self_attn.{letter}_proj.")
        for gate in ("gate", "up", "down"):
            theirs = theirs.replace(f"feed_forward.{gate}.", f"mlp.{gate}_proj.")
        theirs = theirs.replace("embedding.", "embed_tokens.") if theirs.startswith("embedding") else theirs
        names[f"model.{theirs}"] = path
    config = BERT_CONFIG | {"model_type": "llama", "num_key_value_heads": 2}
    write_folder(tmp_path, model, names, config)
    loaded = load_llama(str(tmp_path), SMALL)
    np.testing.assert_array_equal(np.array(loaded(*tokens_and_mask())), np.array(model(*tokens_and_mask())))

"""Exports in the layout of Hugging Face, read back by our own reader, and what is refused."""

import hashlib
import json
from copy import copy
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
import tokenizers

from mlxlab.data.chat.chat_template import ChatTemplate
from mlxlab.errors import CannotCreateError, ConfigError
from mlxlab.models.build import build_model, build_pretrained_model
from mlxlab.models.interop.gguf import export_gguf
from mlxlab.models.interop.hugging_face import export_hugging_face
from mlxlab.models.interop.peft import export_peft
from mlxlab.models.layers import named_parameters
from mlxlab.models.pretrained.gguf import read_gguf
from mlxlab.views.tables import Column, Table, numeric
from support import exported
from support.exported import (
    ALL_REAL,
    BERT,
    CLASSES,
    LLAMA,
    LORA,
    NUMBERS,
    SCALING,
    SIZES,
    TOKENS,
)

GENERATING_CONFIGS = ("config.json", "generation_config.json")
ORIGIN = replace(
    exported.ORIGIN,
    commands=(("", ("data.source=https://me:secret@host/x",)),),
    hashes={"data": "abc"},
    metrics=Table([Column("metric"), *numeric("value")], [["valid/loss", "1.5"]]),
)
CNN = {"_target_": "mlxlab.models.cnn_hybrid.CnnHybrid", **SIZES}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tie_embeddings": False, "attention_bias": "all", "head_dim": 12},
        {"adapter": LORA, "rope_scaling": SCALING},
        {"attention_bias": "qkv"},
        {"qk_norm": True},
    ],
    ids=str,
)
def test_our_reader_gives_the_logits_of_a_decoder(trained, tokenizer, tmp_path, options):
    source = trained({**LLAMA, **options})
    export_hugging_face(source, tmp_path / "hf", ORIGIN)
    again = build_pretrained_model(tmp_path / "hf", tokenizer.vocab_size)
    np.testing.assert_allclose(again(TOKENS, ALL_REAL), source.model(TOKENS, ALL_REAL), atol=1e-5)


def test_our_reader_gives_the_weights_of_an_encoder(trained, tokenizer, tmp_path):
    source = trained(BERT, CLASSES)
    export_hugging_face(source, tmp_path / "hf", ORIGIN)
    node = {"_target_": BERT["_target_"], "dropout": 0.0, "pretrained": str(tmp_path / "hf")}
    with pytest.warns(UserWarning, match=r"ignored, .*: classifier.weight, classifier.bias"):
        loaded = build_model(
            node, kind="classification", vocab_size=tokenizer.vocab_size, num_classes=3, seed=0
        )
    expected = named_parameters(source.model.backbone)
    for path, array in named_parameters(loaded.backbone).items():
        np.testing.assert_array_equal(array, expected[path], err_msg=path)
    arrays = mx.load(str(tmp_path / "hf" / "model.safetensors"))
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    np.testing.assert_array_equal(arrays["classifier.weight"], source.model.head.out.weight)
    assert config["id2label"] == {"0": "red", "1": "green", "2": "blue"}
    assert config["problem_type"] == "single_label_classification"


def test_a_decoder_has_the_classifier_of_llama(trained, tokenizer, tmp_path):
    source = trained({**LLAMA, "classifier_bias": False}, CLASSES)
    export_hugging_face(source, tmp_path / "hf", ORIGIN)
    arrays = mx.load(str(tmp_path / "hf" / "model.safetensors"))
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    np.testing.assert_array_equal(arrays["score.weight"], source.model.head.out.weight)
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    assert config["pad_token_id"] == tokenizer.pad_id
    file = tokenizers.Tokenizer.from_file(str(tmp_path / "hf" / "tokenizer.json"))
    assert file.encode("the cat").ids == tokenizer.encode("the cat")
    logits = source.model.backbone(TOKENS, ALL_REAL)[:, -1] @ arrays["score.weight"].T
    np.testing.assert_allclose(source.model(TOKENS, ALL_REAL), logits, atol=1e-6)


def test_the_card_has_metrics_hashes_and_no_credentials(trained, tmp_path):
    export_hugging_face(trained(LLAMA), tmp_path / "hf", ORIGIN)
    card = (tmp_path / "hf" / "README.md").read_text()
    digest = hashlib.sha256((tmp_path / "hf" / "model.safetensors").read_bytes()).hexdigest()
    assert all(
        text in card
        for text in ("| valid/loss |   1.5 |", "abc ", digest, "pipeline_tag: text-generation")
    )
    assert "secret" not in card
    assert "license" not in card


def test_what_has_no_counterpart_is_one_line(trained, tokenizer, tmp_path):
    out = tmp_path / "hf"
    for node, task, message in [
        (CNN, CLASSES, "model=cnn_hybrid: has no counterpart"),
        ({**LLAMA, "mlp_type": "geglu"}, None, "model.mlp_type=geglu:"),
        ({**LLAMA, "norm_type": "layer"}, None, "model.norm_type=layer:"),
        ({**LLAMA, "position_embedding": "learned"}, None, "model.position_embedding=learned:"),
        (LLAMA, CLASSES, "model.classifier_bias=true:"),
        (LLAMA, NUMBERS, "model=transformer:"),
        ({**BERT, "pooling": "mean"}, CLASSES, "model.pooling=mean: expected dense"),
        ({**BERT, "position_embedding": "rope"}, None, "model.position_embedding=rope:"),
        ({**BERT, "pre_norm": True}, CLASSES, "model.pre_norm="),
        ({**BERT, "mlp_type": "swiglu"}, CLASSES, "model.mlp_type=swiglu:"),
        ({**BERT, "gated_layers": [1]}, CLASSES, "model.gated_layers"),
        ({**BERT, "mlp_type": "relu"}, None, "model.mlp_type=relu: expected gelu"),
    ]:
        with pytest.raises(ConfigError) as error:
            export_hugging_face(trained(node, task), out, ORIGIN)
        assert message in str(error.value)
    scored, words = trained({**LLAMA, "classifier_bias": False}, CLASSES), copy(tokenizer)
    words.pad_id = words.eos_id
    with pytest.raises(ConfigError, match=r"^data.tokenizer: its padding ends texts too"):
        export_hugging_face(replace(scored, tokenizer=words), out, ORIGIN)
    large = trained(LLAMA)
    large.model.backbone.norm.weight = mx.full((32,), 1e5)
    with pytest.raises(ConfigError, match=r"dtype=float16: model.norm.weight"):
        export_hugging_face(large, out, ORIGIN, "float16")
    assert not list(tmp_path.iterdir()), "something is left half-made"
    out.mkdir()
    with pytest.raises(CannotCreateError, match="exists already"):
        export_hugging_face(trained(LLAMA), out, ORIGIN)


def test_a_decoder_gets_no_end_token_after_a_prompt(trained, tokenizer, tmp_path):
    source = trained(LLAMA)
    export_hugging_face(source, tmp_path / "plain", ORIGIN)
    export_hugging_face(replace(source, start=(tokenizer.eos_id,)), tmp_path / "started", ORIGIN)
    plain = tokenizer.encode("the cat", special=False)
    for name, start in (("plain", []), ("started", [tokenizer.eos_id])):
        file = tokenizers.Tokenizer.from_file(str(tmp_path / name / "tokenizer.json"))
        assert file.encode("the cat").ids == [*start, *plain]


def test_the_tokenizer_of_a_decoder_takes_texts_as_long_as_the_model_does(trained, tmp_path):
    source = trained({**LLAMA, "adapter": LORA})
    export_hugging_face(source, tmp_path / "hf", ORIGIN)
    export_peft(source, tmp_path / "peft", ORIGIN, None)
    for folder in ("hf", "peft", "peft/base"):
        written = json.loads((tmp_path / folder / "tokenizer_config.json").read_text())
        positions = source.model.backbone.max_position_embeddings
        assert written["model_max_length"] == positions > source.seq_len
        assert written["padding_side"] == "left"
    limit = json.loads((tmp_path / "hf" / "config.json").read_text())["max_position_embeddings"]
    assert limit == positions
    export_hugging_face(trained(BERT, CLASSES), tmp_path / "bert", ORIGIN)
    config = json.loads((tmp_path / "bert" / "tokenizer_config.json").read_text())
    assert config["model_max_length"] == source.seq_len, "the rows of a classifier are whole texts"


def test_a_pair_gets_types_and_separators(trained, tokenizer, tmp_path):
    source = trained(BERT, replace(CLASSES, pair_separator=tokenizer.end_id))
    export_hugging_face(source, tmp_path / "hf", ORIGIN)
    pair = tokenizers.Tokenizer.from_file(str(tmp_path / "hf" / "tokenizer.json")).encode(
        "the cat", "the dog"
    )
    first, second = (tokenizer.encode(text, special=False) for text in ("the cat", "the dog"))
    assert pair.ids == [tokenizer.bos_id, *first, tokenizer.end_id, *second, tokenizer.end_id]
    assert pair.type_ids == [0] * (len(first) + 2) + [1] * (len(second) + 1)


@pytest.mark.parametrize(
    ("start", "template", "expected"),
    [
        ("", "", "<bos>"),
        ("<eos>", "", "<eos>"),
        ("", "<mask>", "<mask>"),
        ("<eos>", "<mask>", "<eos>"),
    ],
)
def test_all_exports_name_one_start_token(trained, tokenizer, tmp_path, start, template, expected):
    token = tokenizer.inner.token_to_id(expected)
    source = replace(
        trained(LLAMA),
        start=(tokenizer.inner.token_to_id(start),) if start else (),
        template=ChatTemplate("{{ bos_token }}", "chat", template, "<eos>") if template else None,
    )
    export_hugging_face(source, tmp_path / "hf", ORIGIN)
    export_gguf(source, tmp_path / "model.gguf", "tiny")
    folder = tmp_path / "hf"
    configs = [json.loads((folder / name).read_text()) for name in GENERATING_CONFIGS]
    assert [config["bos_token_id"] for config in configs] == [token, token]
    texts = json.loads((folder / "tokenizer_config.json").read_text())
    assert texts["bos_token"] == expected
    _, metadata = read_gguf(tmp_path / "model.gguf")
    assert int(metadata["tokenizer.ggml.bos_token_id"]) == token

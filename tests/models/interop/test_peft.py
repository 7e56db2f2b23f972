"""Adapters as PEFT reads them: names, shapes and settings, without PEFT."""

import json
import shutil
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.errors import ConfigError
from mlxlab.models.adapters.freeze import frozen_parameters
from mlxlab.models.build import build_pretrained_model
from mlxlab.models.interop.peft import export_peft
from mlxlab.models.layers import named_parameters
from support.exported import ALL_REAL, BERT, CLASSES, CODES, LLAMA, LORA, NUMBERS, ORIGIN, TOKENS


def export(source, out, published=None):
    export_peft(source, out, ORIGIN, published)
    config = json.loads((out / "adapter_config.json").read_text())
    is_own = config["base_model_name_or_path"] == str(out / "base")
    assert is_own == (out / "base" / "config.json").is_file()
    return mx.load(str(out / "adapter_model.safetensors")), config


def test_names_shapes_and_settings(trained, tmp_path):
    source = trained({**LLAMA, "adapter": {**LORA, "dora": True, "train": ["norm"]}})
    layer = source.model.backbone.layers[1].attention.key
    arrays, config = export(source, tmp_path / "peft")
    name = "base_model.model.model.layers.1.self_attn.k_proj"
    np.testing.assert_array_equal(arrays[f"{name}.lora_A.weight"], layer.lora_a)
    np.testing.assert_array_equal(arrays[f"{name}.lora_B.weight"], layer.lora_b)
    np.testing.assert_array_equal(arrays[f"{name}.lora_magnitude_vector"], layer.magnitude)
    assert arrays[f"{name}.lora_A.weight"].shape == (2, 32)
    assert "base_model.model.model.norm.weight" in arrays
    assert len(arrays) == 3 * 14 + 1
    assert (config["r"], config["lora_alpha"], config["use_dora"]) == (2, 16.0, True)
    assert len(config["target_modules"]) == 14
    assert name.removeprefix("base_model.model.") in config["target_modules"]
    assert config["modules_to_save"] == ["model.norm"]
    card = (tmp_path / "peft" / "README.md").read_text()
    assert "library_name: peft" in card
    assert 'AutoModelForCausalLM.from_pretrained("base")' in card


def test_the_targets_are_the_layers_with_adapters(trained, tmp_path):
    only = {**LORA, "targets": ["layers.0.feed_forward.down", "attention.value"]}
    config = export(trained({**BERT, "adapter": only}, CLASSES), tmp_path / "peft")[1]
    layers = "bert.encoder.layer."
    assert config["target_modules"] == [
        f"{layers}0.attention.self.value",
        f"{layers}0.output.dense",
        f"{layers}1.attention.self.value",
    ]
    assert (config["task_type"], config["modules_to_save"]) == ("SEQ_CLS", ["classifier"])


def test_a_regression_saves_a_classifier_in_the_units_of_the_data(trained, tmp_path):
    source = trained({**BERT, "adapter": LORA}, NUMBERS)
    arrays, _ = export(source, tmp_path / "peft")
    expected = 3 * np.array(source.model.head.out.weight)
    np.testing.assert_allclose(arrays["base_model.model.classifier.weight"], expected, rtol=1e-6)


@pytest.mark.parametrize("more", [{}, {"quantization": CODES}], ids=["lora", "qlora"])
def test_the_base_is_the_model_without_adapters(trained, tokenizer, tmp_path, more):
    source = trained({**LLAMA, "adapter": LORA, **more})
    config = export(source, tmp_path / "peft")[1]
    assert config["base_model_name_or_path"] == str(tmp_path / "peft" / "base")
    base = build_pretrained_model(tmp_path / "peft" / "base", tokenizer.vocab_size)
    for _, layer in source.model.named_modules():
        if "lora_b" in layer:
            layer.lora_b = mx.zeros_like(layer.lora_b)
    np.testing.assert_allclose(base(TOKENS, ALL_REAL), source.model(TOKENS, ALL_REAL), atol=1e-5)


def test_published_weights_are_named_where_their_layers_have_these_names(
    trained, tmp_path, monkeypatch
):
    source = trained({**BERT, "adapter": LORA}, CLASSES)
    export(source, tmp_path / "with_base")
    shutil.copytree(tmp_path / "with_base" / "base", tmp_path / "bert")
    config = json.loads((tmp_path / "bert" / "config.json").read_text())
    for name, more in [
        ("roberta", {"model_type": "roberta"}),
        ("codes", {"quantization": {"bits": 4, "group_size": 32}}),
    ]:
        shutil.copytree(tmp_path / "bert", tmp_path / name)
        (tmp_path / name / "config.json").write_text(json.dumps(config | more))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text(json.dumps(config))
    cached = tmp_path / "hub" / "models--us--bert"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0a")
    shutil.copytree(tmp_path / "bert", cached / "snapshots" / "0a")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    hub = {
        name: export(source, tmp_path / name / "peft", name)[1] for name in ("us/bert", "us/other")
    }
    bases = [config["base_model_name_or_path"] for config in hub.values()]
    assert bases == ["us/bert", str(tmp_path / "us/other" / "peft" / "base")]
    names = {}
    for name in ("bert", "roberta", "codes", "none", "empty", "model.gguf"):
        names[name] = export(source, tmp_path / f"{name}_peft", str(tmp_path / name))[1][
            "base_model_name_or_path"
        ]
    own = {name: str(tmp_path / f"{name}_peft" / "base") for name in names}
    assert names == {**own, "bert": str(tmp_path / "bert")}
    card = (tmp_path / "bert_peft" / "README.md").read_text()
    assert f'from_pretrained("{tmp_path}/bert", num_labels=3)' in card


@pytest.mark.parametrize("more", [{}, {"quantization": CODES}], ids=["lora", "qlora"])
def test_published_weights_are_named_only_while_they_are_those_below_the_adapters(
    trained, tmp_path, more
):
    node = {**LLAMA, "adapter": {**LORA, "train": ["*norm"]}}
    export(trained(node), tmp_path / "first")
    folder = str(tmp_path / "first" / "base")

    def is_named(source, number):
        config = export(source, tmp_path / f"peft{number}", folder)[1]
        return config["base_model_name_or_path"] == folder

    source = trained({**node, "pretrained": folder, **more})
    source = replace(source, node={**source.node, "pretrained": None})  # as in a checkpoint
    parameters = {
        path: array
        for path, array in named_parameters(source.model).items()
        if array.dtype == mx.float32 and ".layers.1." not in path
    }
    assert is_named(source, 0)
    frozen = {path for path in parameters if path in frozen_parameters(source.model)}
    for number, (path, array) in enumerate(parameters.items(), 1):
        source.model.load_weights([(path, array + 1e-3)], strict=False)
        assert is_named(source, number) != (path in frozen), path
        source.model.load_weights([(path, array)], strict=False)
    assert is_named(source, number + 1)
    assert frozen


def test_what_peft_has_no_adapters_for_is_one_line(trained, tmp_path):
    for node, options, message in [
        (LLAMA, None, "model.adapter: expected a run with adapters"),
        (LLAMA, {"targets": ["embedding"]}, "not of embedding"),
        (LLAMA, {"train": ["embedding"]}, "cannot save embedding.weight"),
        (BERT, {"train": ["head"]}, "cannot save head.bias of BertForMaskedLM"),
        (BERT, {"train": ["attention.query.bias"]}, "cannot save layers.0.attention"),
    ]:
        adapter = options and {**LORA, **options}
        with pytest.raises(ConfigError, match=message):
            export(trained({**node, "adapter": adapter}), tmp_path / "peft")
    assert not list(tmp_path.iterdir()), "something is left half-made"

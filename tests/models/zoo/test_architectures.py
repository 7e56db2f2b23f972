"""Keys of a `model.config` that a user wrote."""

import sys
from importlib.util import find_spec

import pytest

from mlxlab.errors import ConfigError, ServiceUnavailableError
from mlxlab.models.zoo import architectures
from mlxlab.models.zoo.architectures import check_keys

needs_mlx_lm = pytest.mark.skipif(find_spec("mlx_lm") is None, reason="needs the extra zoo")

STARCODER = {
    "model_type": "starcoder2",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@needs_mlx_lm
def test_keys_of_the_architecture_and_those_of_any_config_json_are_taken():
    others = {"rope_theta": 10.0, "torch_dtype": "bfloat16", "eos_token_id": 3}
    check_keys(STARCODER | others, "model.config")


@needs_mlx_lm
def test_all_keys_that_are_unknown_or_missing_are_in_one_line():
    config = {**STARCODER, "rope_thet": 10.0}
    del config["hidden_size"], config["num_key_value_heads"]
    fault = r"no rope_thet; did you mean rope_theta\?; .* needs hidden_size, num_key_value_heads$"
    with pytest.raises(ConfigError, match=fault):
        check_keys(config, "model.config")


def test_without_mlx_lm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlx_lm.models", None)
    with pytest.raises(ServiceUnavailableError, match=r"needs mlx-lm; pip install -e '\.\[zoo\]'"):
        architectures.architectures()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_position_embeddings", "many"),
        ("max_position_embeddings", [1]),
        ("n_positions", -5),
        ("num_hidden_layers", 30_000_000),
    ],
)
def test_a_length_or_number_of_layers_out_of_bounds_is_refused_by_its_key(key, value):
    architectures.check_sizes({**STARCODER, "max_position_embeddings": None}, "model.config")
    for config, path in (
        ({key: value}, key),
        ({"text_config": {key: value}}, f"text_config.{key}"),
    ):
        with pytest.raises(ConfigError, match=rf"^model\.config: {path}: expected [^\n]*$"):
            architectures.check_sizes(config, "model.config")

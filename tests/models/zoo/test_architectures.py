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
    check_keys(
        {**STARCODER, "rope_theta": 10.0, "torch_dtype": "bfloat16", "eos_token_id": 3},
        "model.config",
    )


@needs_mlx_lm
def test_all_keys_that_are_unknown_or_missing_are_in_one_line():
    config = {
        key: value
        for key, value in STARCODER.items()
        if key not in ("hidden_size", "num_key_value_heads")
    }
    with pytest.raises(ConfigError) as error:
        check_keys({**config, "rope_thet": 10.0}, "model.config")
    unknown = "starcoder2 has no rope_thet; did you mean rope_theta?"
    assert (
        str(error.value)
        == f"model.config: {unknown}; starcoder2 needs hidden_size, num_key_value_heads"
    )


def test_without_mlx_lm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlx_lm.models", None)
    with pytest.raises(
        ServiceUnavailableError, match=r"model=mlx_lm needs mlx-lm; pip install -e '\.\[zoo\]'"
    ):
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

"""The config.json of a pretrained model: the keys that are read, checked."""

from pathlib import Path
from typing import Required, TypedDict, cast

from mlxlab.errors import ConfigError, DataError, NotAllowedError
from mlxlab.files.untrusted import ShapeError, read_json, validate
from mlxlab.models.pretrained.gguf import gguf_config
from mlxlab.schema.constraints import Count, Layers, ModelSize, Positive, Size

SYNONYMS = {  # keys of DistilBERT and ModernBERT -> those of BERT
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "hidden_dim": "intermediate_size",
    "activation": "hidden_act",
    "hidden_activation": "hidden_act",
    "norm_eps": "layer_norm_eps",
}


class PretrainedConfig(TypedDict, total=False):
    """The keys of a config.json that are read."""

    model_type: str
    vocab_size: Required[ModelSize]
    hidden_size: Required[ModelSize]
    num_hidden_layers: Required[Layers]
    num_attention_heads: Required[ModelSize]
    num_key_value_heads: ModelSize | None
    head_dim: ModelSize | None
    intermediate_size: Required[ModelSize]
    max_position_embeddings: ModelSize
    hidden_act: str
    layer_norm_eps: Positive
    rms_norm_eps: Positive
    rope_theta: Positive | None
    rope_parameters: dict[str, object] | None
    rope_scaling: dict[str, object] | None
    tie_word_embeddings: bool
    position_embedding_type: str
    type_vocab_size: int
    pad_token_id: Count | None
    attention_bias: bool | None
    mlp_bias: bool | None
    sliding_window: int | None
    use_sliding_window: bool | None
    global_rope_theta: Positive
    local_rope_theta: Positive
    global_attn_every_n_layers: Size
    layer_types: list[str] | None
    local_attention: Count
    norm_bias: bool
    decoder_bias: bool
    classifier_bias: bool
    classifier_activation: str
    classifier_pooling: str


def read_config(path: Path) -> PretrainedConfig:
    """The folder's config.json, or the same keys from a GGUF file.

    Raises:
        InputNotFoundError: no config.json. DataError: it is damaged. NotAllowedError: it wants to run its own code.
        ConfigError: an unsupported GGUF file.
    """
    if path.suffix == ".gguf":
        file = path
        content = gguf_config(path)
    else:
        # Resolved: the files of a downloaded snapshot are symbolic links.
        file = (path / "config.json").resolve()
        keys = {*PretrainedConfig.__annotations__, *SYNONYMS, "auto_map"}
        content = read_json(file, dict[str, object], keys=keys)
    if "auto_map" in content:
        raise NotAllowedError(f"{file}: asks to run code of its own (auto_map)")
    content = {SYNONYMS[key]: value for key, value in content.items() if key in SYNONYMS} | content
    try:
        known = {
            key: value for key, value in content.items() if key in PretrainedConfig.__annotations__
        }
        config = cast(PretrainedConfig, validate(known, PretrainedConfig))
        validate(
            config["num_attention_heads"] * (config.get("head_dim") or 1),
            ModelSize,
            "all heads together",
        )
    except ShapeError as error:
        raise DataError(f"{file}: {error}") from None
    head_dim = config.get("head_dim")
    heads = config["num_attention_heads"]
    if (
        path.suffix == ".gguf"
        and head_dim is not None
        and head_dim != config["hidden_size"] // heads
    ):
        raise ConfigError(
            f"{file}: rotary positions of {head_dim} dimensions (head_dim) are not supported"
        )
    return config


def require(config: PretrainedConfig, title: str, **supported: list[object]) -> None:
    """ConfigError where a key has another value than these; null and false are as if it were absent."""
    for key, values in supported.items():
        if (value := config.get(key)) not in (None, False, *values):
            raise ConfigError(
                f"{title}: {key} is {value}, only {' or '.join(map(str, values))} is supported"
            )

"""Decoders as Llama (Touvron et al. 2023): for transformers, mlx-lm and llama.cpp."""

from mlxlab.errors import ConfigError
from mlxlab.interop.trained_model import TrainedModel
from mlxlab.models.transformer import Transformer

REQUIRED = {"norm_type": "rms", "mlp_type": "swiglu", "position_embedding": "rope"}


def llama_config(trained: TrainedModel) -> dict[str, object]:
    """The config.json of a decoder, without what its tokenizer adds.

    Raises:
        ConfigError: an option of it has no counterpart, or it is a classifier: that of Llama has no bias.
    """
    options = trained.arguments(Transformer)
    for key, value in REQUIRED.items():
        if options[key] != value:
            raise ConfigError(f"model.{key}={options[key]}: expected {value}; Llama has nothing else")
    if trained.task.kind != "language_modelling":
        kind = trained.task.kind
        raise ConfigError(f"model=transformer: a decoder for {kind} has a bias that Llama lacks; expected model=bert")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": options["hidden_size"],
        "intermediate_size": options["intermediate_size"],
        "num_hidden_layers": options["num_layers"],
        "num_attention_heads": options["num_heads"],
        "num_key_value_heads": options["num_kv_heads"] or options["num_heads"],
        "head_dim": options["head_dim"] or options["hidden_size"] // options["num_heads"],
        "max_position_embeddings": options["max_position_embeddings"],
        "rms_norm_eps": options["norm_eps"],
        "rope_theta": options["rope_theta"],
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": options["tie_embeddings"],
    }

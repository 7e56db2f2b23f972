"""Encoders as BERT (Devlin et al. 2018): for transformers."""

from mlxlab.data.batch import TaskKind
from mlxlab.errors import ConfigError
from mlxlab.interop.trained_model import TrainedModel
from mlxlab.models.bert import Bert
from mlxlab.models.layers import GATES

MASKED_EPS = 1e-12  # of the norm in the head of a masked language model
PROBLEM_TYPES: dict[TaskKind, str] = {
    "classification": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}


def bert_config(trained: TrainedModel) -> dict[str, object]:
    """The config.json of an encoder, without what its tokenizer adds; ConfigError for options without counterpart."""
    options = trained.arguments(Bert)
    head_dim = options["hidden_size"] // options["num_heads"]
    required = {"position_embedding": "learned", "pre_norm": False}
    for key, value in required.items():
        if options[key] != value:
            raise ConfigError(f"model.{key}={_text(options[key])}: expected {_text(value)}; BERT has nothing else")
    if options["mlp_type"] in GATES:
        raise ConfigError(f"model.mlp_type={options['mlp_type']}: expected gelu, relu or silu; BERT has no gates")
    if list(options["gated_layers"]):
        raise ConfigError(f"model.gated_layers={list(options['gated_layers'])}: expected []; BERT has no gated layers")
    if options["head_dim"] not in (None, head_dim):
        raise ConfigError(f"model.head_dim={options['head_dim']}: expected {head_dim}; BERT has no heads of other size")
    return {
        "model_type": "bert",
        "hidden_act": options["mlp_type"],
        "hidden_size": options["hidden_size"],
        "intermediate_size": options["intermediate_size"],
        "num_hidden_layers": options["num_layers"],
        "num_attention_heads": options["num_heads"],
        "max_position_embeddings": options["max_position_embeddings"],
        "type_vocab_size": 2,
        "layer_norm_eps": options["norm_eps"],
        "hidden_dropout_prob": options["dropout"],
        "attention_probs_dropout_prob": options["dropout"],
    } | _head(trained, options["mlp_type"], options["norm_eps"])


def _head(trained: TrainedModel, activation: str, norm_eps: float) -> dict[str, object]:
    task = trained.task
    if task.kind == "language_modelling":
        for key, value, expected in (("mlp_type", activation, "gelu"), ("norm_eps", norm_eps, MASKED_EPS)):
            if value != expected:
                raise ConfigError(f"model.{key}={value}: expected {expected}, as in the head of a masked model")
        return {"architectures": ["BertForMaskedLM"], "tie_word_embeddings": True}
    names = task.labels or tuple(f"LABEL_{number}" for number in range(task.num_classes))
    config: dict[str, object] = {
        "architectures": ["BertForSequenceClassification"],
        "problem_type": PROBLEM_TYPES[task.kind],
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }
    return config | ({"thresholds": list(trained.thresholds)} if trained.thresholds else {})


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

"""The published architecture that computes what a trained model does: its config.json and the names of its weights."""

import inspect
from dataclasses import dataclass

from mlxlab.config.instantiate import import_target
from mlxlab.data.batch import TaskKind
from mlxlab.errors import ConfigError
from mlxlab.interop.trained_model import TrainedModel
from mlxlab.models.pretrained.families import export_family
from mlxlab.models.pretrained.family import BERT, CNN_HYBRID, TRANSFORMER, Family

DECODERS = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
}
PROBLEM_TYPES: dict[TaskKind, str] = {
    "classification": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}


@dataclass(frozen=True)
class Counterpart:
    """A published architecture."""

    family: Family
    architecture: str  # the class in transformers
    config: dict[str, object]  # of config.json, without what the tokenizer adds

    def published_name(self, path: str) -> str:
        """The name of a parameter of the model with its head."""
        classifier = "SequenceClassification" in self.architecture
        if classifier and path.startswith("head.out."):
            return path.replace("head.out", "classifier")
        return self.family.published_name(path)


def counterpart_of(trained: TrainedModel) -> Counterpart:
    """ConfigError, naming the option of the model, where no published architecture computes the same."""
    target = str(trained.node["_target_"])
    if target == CNN_HYBRID:
        raise ConfigError("model=cnn_hybrid: has no counterpart in transformers; expected model=transformer or bert")
    family, config = export_family(_arguments(trained, target))
    kind, model_type = trained.task.kind, family.model_type
    if target == TRANSFORMER and kind != "language_modelling":
        raise ConfigError(f"model=transformer: a decoder for {kind} has a bias that Llama lacks; expected model=bert")
    if model_type in DECODERS:
        return Counterpart(family, DECODERS[model_type], config)
    if model_type != "bert" or target != BERT:
        raise ConfigError(f"model: {model_type} cannot be exported for {kind}; expected the options of BERT")
    if kind == "language_modelling":
        _check_masked_head(config)
        return Counterpart(family, "BertForMaskedLM", config | {"tie_word_embeddings": True})
    if (pooling := trained.node.get("pooling", "dense")) != "dense":
        raise ConfigError(f"model.pooling={pooling}: expected dense, as in BERT's classifier")
    return Counterpart(family, "BertForSequenceClassification", config | _classes(trained))


def _arguments(trained: TrainedModel, target: str) -> dict[str, object]:
    """All arguments of the backbone; the constructor has the defaults of those that the node does not name."""
    signature = inspect.signature(import_target(target))
    defaults = {each.name: each.default for each in signature.parameters.values() if each.default is not each.empty}
    return defaults | dict(trained.node) | {"vocab_size": trained.vocab_size}


def _check_masked_head(config: dict[str, object]) -> None:
    if config["hidden_act"] != "gelu":
        raise ConfigError(f"model.mlp_type={config['hidden_act']}: expected gelu, as in the head of a masked model")


def _classes(trained: TrainedModel) -> dict[str, object]:
    task = trained.task
    names = task.labels or tuple(f"LABEL_{number}" for number in range(task.num_classes))
    classes: dict[str, object] = {
        "problem_type": PROBLEM_TYPES[task.kind],
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }
    return classes | ({"thresholds": list(trained.thresholds)} if trained.thresholds else {})

"""The published architecture that computes what a trained model does: its config.json and the names of its weights."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from mlxlab.config.instantiate import import_target
from mlxlab.data.batch import TaskKind
from mlxlab.errors import ConfigError
from mlxlab.interop.trained_model import TrainedModel
from mlxlab.models.pretrained.families import export_family
from mlxlab.models.pretrained.family import CNN_HYBRID, TRANSFORMER, Family
from mlxlab.models.pretrained.load import MLX_LM
from mlxlab.models.zoo.export import cast_predicate, published_config, published_name

Ending = Literal[
    "ForCausalLM", "ForMaskedLM", "ForSequenceClassification"
]  # of the class in transformers
CLASSES = {
    "bert": "Bert",
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
}
PROBLEM_TYPES: dict[TaskKind, str] = {
    "classification": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}


@dataclass(frozen=True)
class Counterpart:
    """A published architecture.

    Args:
        name: its class in transformers, or its type in mlx-lm.
        ending: of that class.
        config: of config.json, without what the tokenizer adds.
        published_name: of a parameter of the model with its head, by our path.
        casts: whether the array of a published name may have fewer bits than float32.
        needs_mlx_lm: only mlx-lm reads the names.
    """

    name: str
    ending: Ending
    config: Mapping[str, object]
    published_name: Callable[[str], str]
    casts: Callable[[str], bool] = lambda name: True
    needs_mlx_lm: bool = False

    @property
    def model_type(self) -> str:
        return str(self.config["model_type"])


TABULAR = "mlxlab.models.tabular.Tabular"


def counterpart_of(trained: TrainedModel) -> Counterpart:
    """ConfigError, naming the option of the model, where no published architecture computes the same."""
    target = str(trained.node["_target_"])
    if target == TABULAR:
        raise ConfigError("model=tabular: has no counterpart in transformers; expected model=bert")
    if target == CNN_HYBRID:
        raise ConfigError(
            "model=cnn_hybrid: has no counterpart in transformers; expected model=transformer or bert"
        )
    if target == MLX_LM:
        return _of_mlx_lm(trained)
    arguments = _arguments(trained, target)
    family, config = export_family(arguments)
    if target == TRANSFORMER:
        return _decoder(trained, family, config, has_bias=bool(arguments["classifier_bias"]))
    return _encoder(trained, family, config)


def _of_mlx_lm(trained: TrainedModel) -> Counterpart:
    config = published_config(trained.model, trained.node)
    casts = cast_predicate(trained.model)
    return Counterpart(
        str(config["model_type"]),
        "ForCausalLM",
        config,
        published_name,
        casts=casts,
        needs_mlx_lm=True,
    )


def _decoder(
    trained: TrainedModel, family: Family, config: dict[str, object], *, has_bias: bool
) -> Counterpart:
    name = CLASSES[family.model_type]
    kind = trained.task.kind
    if kind == "language_modelling":
        return _published(family, "ForCausalLM", config, family.published_name)
    if kind == "regression":
        raise ConfigError(
            f"model=transformer: the classifier of {name} has no bias for numbers; expected model=bert"
        )
    if has_bias:
        raise ConfigError(
            f"model.classifier_bias=true: {name} has false; expected a run with false, or of model=bert"
        )
    if trained.tokenizer.encode("a")[-1] == trained.tokenizer.pad_id:
        raise ConfigError(
            f"data.tokenizer: its padding ends texts too, and the classifier of {name} skips padding"
        )
    config = config | _classes(trained)
    rename = _with_classifier(family, "score")
    return _published(family, "ForSequenceClassification", config, rename)


def _encoder(trained: TrainedModel, family: Family, config: dict[str, object]) -> Counterpart:
    if trained.task.kind == "language_modelling":
        if config["hidden_act"] != "gelu":
            raise ConfigError(
                f"model.mlp_type={config['hidden_act']}: expected gelu, as in the head of a masked model"
            )
        config = config | {"tie_word_embeddings": True}
        return _published(family, "ForMaskedLM", config, family.published_name)
    if (pooling := trained.node.get("pooling", "dense")) != "dense":
        raise ConfigError(f"model.pooling={pooling}: expected dense, as in BERT's classifier")
    config = config | _classes(trained)
    rename = _with_classifier(family, "classifier")
    return _published(family, "ForSequenceClassification", config, rename)


def _published(
    family: Family, ending: Ending, config: Mapping[str, object], rename: Callable[[str], str]
) -> Counterpart:
    name = CLASSES[family.model_type] + ending
    return Counterpart(name, ending, {"architectures": [name], **config}, rename)


def _with_classifier(family: Family, module: str) -> Callable[[str], str]:
    """Published names of a model whose output layer is this module."""

    def rename(path: str) -> str:
        return (
            path.replace("head.out", module)
            if path.startswith("head.out.")
            else family.published_name(path)
        )

    return rename


def _arguments(trained: TrainedModel, target: str) -> dict[str, object]:
    """All arguments of the backbone; the constructor has the defaults of those that the node does not name."""
    signature = inspect.signature(import_target(target))
    defaults = {
        each.name: each.default
        for each in signature.parameters.values()
        if each.default is not each.empty
    }
    return defaults | dict(trained.node) | {"vocab_size": trained.vocab_size}


def _classes(trained: TrainedModel) -> dict[str, object]:
    task = trained.task
    names = task.labels or tuple(f"LABEL_{number}" for number in range(task.num_classes))
    classes: dict[str, object] = {
        "problem_type": PROBLEM_TYPES[task.kind],
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }
    return classes | ({"thresholds": list(trained.thresholds)} if trained.thresholds else {})

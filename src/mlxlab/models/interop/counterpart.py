"""The published architecture that computes what a trained model does: its config.json and the names of its weights."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from mlxlab.config.instantiate import import_target
from mlxlab.data.batch import TaskKind
from mlxlab.errors import ConfigError
from mlxlab.models.interop.trained_model import TrainedModel
from mlxlab.models.pretrained.family import CNN_HYBRID, TABULAR, TRANSFORMER
from mlxlab.models.pretrained.load import MLX_LM
from mlxlab.models.pretrained.weights import export_family
from mlxlab.models.zoo.published import cast_predicate, published_config, published_name

# How the name of a class of transformers ends.
Ending = Literal["ForCausalLM", "ForMaskedLM", "ForSequenceClassification"]
CLASSES = {
    "bert": "Bert",
    "llama": "Llama",
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


def counterpart_of(trained: TrainedModel) -> Counterpart:
    """ConfigError, naming the option of the model, where no published architecture computes the same."""
    target = str(trained.node["_target_"])
    if target in (TABULAR, CNN_HYBRID):
        option = target.split(".")[-2]
        expected = "expected model=transformer or model=bert"
        raise ConfigError(f"model={option}: has no counterpart in transformers; {expected}")
    if target == MLX_LM:
        config = published_config(trained.model, trained.node)
        casts = cast_predicate(trained.model)
        name = str(config["model_type"])
        return Counterpart(name, "ForCausalLM", config, published_name, casts, needs_mlx_lm=True)
    arguments = _arguments(trained, target)
    family, config = export_family(arguments)
    ending: Ending = "ForMaskedLM"
    output_layer = "classifier"
    if target == TRANSFORMER:
        ending = "ForCausalLM"
        output_layer = "score"
    classifies = trained.task.kind != "language_modelling"
    if classifies:
        ending = "ForSequenceClassification"
        config |= _classes(trained)
    name = CLASSES[family.model_type] + ending
    _check_head(trained, arguments, CLASSES[family.model_type])

    def rename(path: str) -> str:
        if classifies and path.startswith("head.out."):
            return path.replace("head.out", output_layer)
        return family.published_name(path)

    return Counterpart(name, ending, {"architectures": [name], **config}, rename)


def _check_head(trained: TrainedModel, arguments: Mapping[str, object], name: str) -> None:
    """ConfigError if the head of a class in transformers computes something else."""
    kind = trained.task.kind
    if not trained.model.backbone.causal:
        mlp_type = arguments["mlp_type"]
        if kind == "language_modelling" and mlp_type != "gelu":
            expected = "expected gelu, as in the head of a masked model"
            raise ConfigError(f"model.mlp_type={mlp_type}: {expected}")
        pooling = arguments["pooling"]
        if kind != "language_modelling" and pooling != "dense":
            raise ConfigError(f"model.pooling={pooling}: expected dense, as in BERT's classifier")
        return
    if kind == "language_modelling":
        return
    if kind == "regression":
        reason = f"the classifier of {name} has no bias for numbers"
        raise ConfigError(f"model=transformer: {reason}; expected model=bert")
    if arguments["classifier_bias"]:
        expected = "expected a run with false, or of model=bert"
        raise ConfigError(f"model.classifier_bias=true: {name} has false; {expected}")
    if trained.tokenizer.encode("a")[-1] == trained.tokenizer.pad_id:
        reason = f"its padding ends texts too, and the classifier of {name} skips padding"
        raise ConfigError(f"data.tokenizer: {reason}")


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
    if trained.thresholds:
        classes["thresholds"] = list(trained.thresholds)
    return classes

"""A trained model, and the published architecture that computes the same: its config.json, names and weights."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx

from mlxlab.checkpoint.arrays import FLOATS, Arrays, nonfinite_paths
from mlxlab.config.instantiate import import_target
from mlxlab.data.batch import Task, TaskKind
from mlxlab.data.chat.chat_template import ChatTemplate
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.errors import ConfigError, WriteError
from mlxlab.models.adapters.lora import merged_parameters
from mlxlab.models.model import Model
from mlxlab.models.pretrained.family import CNN_HYBRID, TABULAR, TRANSFORMER
from mlxlab.models.pretrained.load import MLX_LM
from mlxlab.models.pretrained.weights import export_family
from mlxlab.models.zoo.files import cast_predicate, published_config, published_name

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


DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}


@dataclass(frozen=True)
class TrainedModel:
    """A model in evaluation mode, its `model` node, its tokenizer and its task.

    Args:
        seq_len: tokens of the rows that it was trained on; None where they have no limit.
        start: tokens that it expects before the first one of a text, apart from those of the tokenizer.
        template: of a chat model.
        end_ids: tokens that end what it generates.
        thresholds: probability from which each of `task.decided_labels` holds; none if the most probable class counts.
    """

    model: Model
    node: Mapping[str, Any]
    tokenizer: Tokenizer
    task: Task
    seq_len: int | None = None
    start: tuple[int, ...] = ()
    template: ChatTemplate | None = None
    end_ids: tuple[int, ...] = ()
    thresholds: tuple[float, ...] = ()

    @property
    def generates(self) -> bool:
        """Whether it is a causal language model."""
        return self.model.backbone.causal and self.task.kind == "language_modelling"

    @property
    def start_id(self) -> int | None:
        """The token that begins a text, by which every export names it."""
        if self.start:
            return self.start[0]
        if self.template is not None:
            token: int | None = self.tokenizer.inner.token_to_id(self.template.bos_token)
            if token is not None:
                return token
        return self.tokenizer.bos_id

    @property
    def has_token_types(self) -> bool:
        """Whether it tells the texts of a pair apart: an encoder with two token types."""
        return not self.model.backbone.causal and self.node.get("num_token_types", 2) == 2

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding: the tokens of the tokenizer, and perhaps more."""
        return int(self.model.backbone.embedding.weight.shape[0])


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


def plain_weights(trained: TrainedModel, *, with_adapters: bool = True) -> Arrays:
    """The float32 weights by path, adapters folded in; a regression gives its numbers as they stand in the data."""
    weights = merged_parameters(trained.model, with_adapters=with_adapters)
    task = trained.task
    if task.kind == "regression":
        weights["head.out.weight"] = weights["head.out.weight"] * task.target_deviation
        weights["head.out.bias"] = (
            weights["head.out.bias"] * task.target_deviation + task.target_mean
        )
    return weights


def publish(
    weights: Mapping[str, mx.array],
    rename: Callable[[str], str],
    dtype: str,
    casts: Callable[[str], bool],
) -> Arrays:
    """The arrays under their published names; ConfigError if a number of one is too large for the type.

    Args:
        casts: whether the array of a published name gets the type; others keep theirs.
    """
    published = {}
    for path, array in weights.items():
        name = rename(path)
        if array.dtype in FLOATS and casts(name):
            array = array.astype(DTYPES[dtype])
        published[name] = array
    if too_large := nonfinite_paths(published):
        raise ConfigError(
            f"dtype={dtype}: {too_large[0]} has numbers that are too large for it; expected float32"
        )
    return published


@contextmanager
def refuse_unwritable(out: Path) -> Iterator[None]:
    """Raises WriteError for an output that cannot be written inside."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # MLX has no exception of its own for a full disk.
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise WriteError(f"out={out}: {reason}") from None

"""Options that every `model` node has in addition to the arguments of its backbone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

from mlxlab.config.instantiate import instantiate
from mlxlab.schema.constraints import MinLen, Positive, Share, Size


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters (Hu et al. 2021): W x + (alpha / rank) B A x, with W frozen and B zero at first.

    Patterns are globs of paths or of the last parts of them (`attention.query`, `layers.[01].*`).

    Args:
        rank: rows of A.
        alpha: scale of the adapter; it is divided by the rank.
        dropout: fraction of the adapter's inputs dropped in training.
        targets: patterns of the linear layers and embeddings that get an adapter; null adapts all projections of
            attention and feed-forward layers.
        dora: also learn the length of each row of the adapted weight (DoRA, Liu et al. 2024).
        train: patterns of other weights to train, such as norms or a head; a classifier always trains.
    """

    rank: Size = 8
    alpha: Positive = 16.0
    dropout: Share = 0.0
    targets: Annotated[Sequence[str], MinLen(1)] | None = None
    dora: bool = False
    train: Sequence[str] = ()


@dataclass(frozen=True)
class Quantization:
    """Weights in few bits.

    Args:
        bits: of each weight; null does not quantise.
        group_size: weights that share a scale; a layer whose width it does not divide stays as it is.
        mode: affine has a scale and an offset for each group; the others are formats of floating-point numbers, mxfp4
            and mxfp8 with group_size 32, nvfp4 with 16.
        skip: patterns of layers that are not quantised; a classifier never is.
    """

    bits: Literal[2, 3, 4, 5, 6, 8] | None = None
    group_size: Literal[16, 32, 64, 128] = 64
    mode: Literal["affine", "mxfp4", "mxfp8", "nvfp4"] = "affine"
    skip: Sequence[str] = ()


@dataclass(frozen=True)
class ModelOptions:
    """What is done with a model apart from building it.

    Args:
        pretrained: folder, GGUF file (decoders) or hub id of published weights to start from; their shape replaces the
            sizes of the node.
        init_from: initial weights of a new run, under the same or published names: those of a run folder (its best
            checkpoint), a checkpoint, a safetensors file or folder, a GGUF file or a hub id; null draws them.
        freeze: patterns of weights that are not trained: globs of paths or of the last parts of them (`embedding`,
            `layers.[01].*`). Adapters of these weights are trained, unless a pattern matches adapters only
            (`*.lora_a`).
        adapter: small trainable weights next to frozen ones; null trains the weights themselves.
        quantization: weights in few bits.
    """

    pretrained: str | None = None
    init_from: str | None = None
    freeze: Sequence[str] = ()
    adapter: LoRA | None = None
    quantization: Quantization = field(default_factory=Quantization)


def split_node(node: Mapping[str, Any]) -> tuple[ModelOptions, dict[str, Any]]:
    """The options of a `model` node, and the node of its backbone."""
    names = {option.name for option in fields(ModelOptions)}
    options = instantiate({name: value for name, value in node.items() if name in names}, dict)
    return ModelOptions(**options), {
        name: value for name, value in node.items() if name not in names
    }

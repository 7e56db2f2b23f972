"""Prints the sizes of models, without allocating them.

    mlxlab info presets [vocab_size=16000] [classes=2]
    mlxlab info memory [vocab_size=16000] [batch_size=32] [seq_len=256]

presets  exact parameter counts of every family at every size: as a classifier, and as a language model (masked for
         the encoders, causal with a tied head for the decoder)
memory   what training the decoder holds in float32, in MB of 10^6 bytes: n weights take 4 n bytes, their gradients
         4 n, AdamW 8 n, a batch of B rows of L tokens 16 B L + 8 B. The logits, B L V numbers, are the largest of
         the activations at small sizes; the others depend on model and step (python -m benchmarks measures them)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import yaml

from mlxlab.cli.app import run_command
from mlxlab.cli.args import parse_args
from mlxlab.config.paths import conf_dir
from mlxlab.config.suggest import suggestion
from mlxlab.constraints import Ge, Le
from mlxlab.errors import ConfigError
from mlxlab.markdown import markdown_table

FAMILIES = ("bert", "cnn_hybrid", "transformer")
SIZES = ("nano", "tiny", "small", "medium", "large", "xlarge")
SUBJECTS = ("presets", "memory")


@dataclass(frozen=True)
class PresetOptions:
    """Options of `info presets`.

    Args:
        vocab_size: tokens of the vocabulary.
        classes: classes of the classifier.
    """

    vocab_size: Annotated[int, Ge(1), Le(100_000_000)] = 16_000
    classes: Annotated[int, Ge(1), Le(1_000_000)] = 2


@dataclass(frozen=True)
class MemoryOptions:
    """Options of `info memory`.

    Args:
        vocab_size: tokens of the vocabulary.
        batch_size: rows of a batch.
        seq_len: tokens of a row.
    """

    vocab_size: Annotated[int, Ge(1), Le(100_000_000)] = 16_000
    batch_size: Annotated[int, Ge(1), Le(1_000_000)] = 32
    seq_len: Annotated[int, Ge(1), Le(100_000_000)] = 256


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    return run_command(__doc__, argv, _show)


def _show(args: list[str]) -> None:
    subject, *rest = args
    if subject == "presets":
        presets = parse_args(rest, PresetOptions).options
        print(table(presets.vocab_size, presets.classes))
    elif subject == "memory":
        sizes = parse_args(rest, MemoryOptions).options
        print(memory(sizes.vocab_size, sizes.batch_size, sizes.seq_len))
    else:
        raise ConfigError(f"{subject}: expected presets or memory{suggestion(subject, SUBJECTS)}")


def table(vocab_size: int, classes: int) -> str:
    """The counts as a Markdown table."""
    kinds = ("classification", "language_modelling")
    head = ["size", *(f"{family} {head}" for family in FAMILIES for head in ("classifier", "LM"))]
    rows = [
        [size, *(f"{count(family, size, kind, vocab_size, classes):,}" for family in FAMILIES for kind in kinds)]
        for size in SIZES
    ]
    return markdown_table(head, rows)


def memory(vocab_size: int, batch_size: int, seq_len: int) -> str:
    """Megabytes of what a training step of the decoder holds, as a Markdown table."""
    names = ("weights", "gradients", "AdamW", "batch", "logits")
    rows = []
    for size in SIZES:
        n = count("transformer", size, "language_modelling", vocab_size, 2)
        sizes = footprint(n, vocab_size, batch_size, seq_len)
        rows.append(
            [size, *(f"{bytes_ / 1e6:,.1f}" for bytes_ in (*(sizes[name] for name in names), sum(sizes.values())))]
        )
    return markdown_table(["size", *names, "sum"], rows)


def footprint(parameters: int, vocab_size: int, batch_size: int, seq_len: int) -> dict[str, int]:
    """Bytes in float32 and int32: tokens, mask, targets and weights of each token, and an 8-byte id of each row."""
    tokens = batch_size * seq_len
    return {
        "weights": 4 * parameters,
        "gradients": 4 * parameters,
        "AdamW": 8 * parameters,
        "batch": 16 * tokens + 8 * batch_size,
        "logits": 4 * tokens * vocab_size,
    }


def count(family: str, size: str, kind: Any, vocab_size: int, classes: int) -> int:
    """Parameters of one model; its arrays are never allocated."""
    from mlxlab.models.build import build_model
    from mlxlab.models.model import count_parameters

    node = _read(f"model/{family}") | _read(f"model/size/{size}")
    return count_parameters(build_model(node, kind=kind, num_classes=classes, vocab_size=vocab_size))


def _read(option: str) -> dict[str, Any]:
    return yaml.safe_load((conf_dir() / f"{option}.yaml").read_text(encoding="utf-8"))

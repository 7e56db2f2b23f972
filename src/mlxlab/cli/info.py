"""Prints the sizes of models, without allocating them.

    mlxlab info presets [vocab_size=16000] [classes=2]
    mlxlab info memory [vocab_size=16000] [batch_size=32] [seq_len=256]

presets  exact parameter counts of every family at every size: as a classifier, and as a language model (masked for
         the encoders, causal with a tied head for the decoder)
memory   what training the decoder holds in float32, in MB of 10^6 bytes: n weights take 4 n bytes, their gradients
         4 n, AdamW 8 n, a batch of B rows of L tokens 16 B L + 8 B. The logits, B L V numbers, are the largest of
         the activations at small sizes; the others depend on model and step (python -m benchmarks measures them)
"""

from typing import Annotated, Literal

import yaml

from mlxlab.cli.app import Subcommand, build_main
from mlxlab.config.paths import conf_dir
from mlxlab.constraints import Ge, Le
from mlxlab.markdown import markdown_table

FAMILIES = ("bert", "cnn_hybrid", "transformer")
SIZES = ("nano", "tiny", "small", "medium", "large", "xlarge")
Kind = Literal["classification", "language_modelling"]
KINDS: dict[str, Kind] = {"classifier": "classification", "LM": "language_modelling"}


def presets(
    vocab_size: Annotated[int, Ge(1), Le(100_000_000)] = 16_000, classes: Annotated[int, Ge(1), Le(1_000_000)] = 2
) -> None:
    """Prints the parameter counts as a Markdown table.

    Args:
        vocab_size: tokens of the vocabulary.
        classes: classes of the classifier.
    """
    models = {f"{family} {name}": (family, kind) for family in FAMILIES for name, kind in KINDS.items()}
    rows = [[size, *(f"{count(*model, size, vocab_size, classes):,}" for model in models.values())] for size in SIZES]
    print(markdown_table(["size", *models], rows))


def memory(
    vocab_size: Annotated[int, Ge(1), Le(100_000_000)] = 16_000,
    batch_size: Annotated[int, Ge(1), Le(1_000_000)] = 32,
    seq_len: Annotated[int, Ge(1), Le(100_000_000)] = 256,
) -> None:
    """Prints the megabytes that a training step of the decoder holds as a Markdown table.

    Args:
        vocab_size: tokens of the vocabulary.
        batch_size: rows of a batch.
        seq_len: tokens of a row.
    """
    rows = []
    for size in SIZES:
        parameters = count("transformer", "language_modelling", size, vocab_size)
        sizes = footprint(parameters, vocab_size, batch_size, seq_len)
        rows.append([size, *(f"{bytes_ / 1e6:,.1f}" for bytes_ in (*sizes.values(), sum(sizes.values())))])
    print(markdown_table(["size", *sizes, "sum"], rows))


def footprint(parameters: int, vocab_size: int, batch_size: int, seq_len: int) -> dict[str, int]:
    """Bytes in float32 and int32: tokens, mask, targets and weights of each token, and an 8-byte id of each row."""
    tokens = batch_size * seq_len
    weights = {"weights": 4 * parameters, "gradients": 4 * parameters, "AdamW": 8 * parameters}
    return weights | {"batch": 16 * tokens + 8 * batch_size, "logits": 4 * tokens * vocab_size}


def count(family: str, kind: Kind, size: str, vocab_size: int, classes: int = 0) -> int:
    """Parameters of one model; its arrays are never allocated."""
    from mlxlab.models.build import build_model
    from mlxlab.models.model import count_parameters

    files = [conf_dir() / "model" / f"{option}.yaml" for option in (family, f"size/{size}")]
    node, sizes = (yaml.safe_load(file.read_text(encoding="utf-8")) for file in files)
    return count_parameters(build_model(node | sizes, kind=kind, num_classes=classes, vocab_size=vocab_size))


main = build_main(__doc__, {"presets": Subcommand(presets), "memory": Subcommand(memory)})

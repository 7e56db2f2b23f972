"""Parameters of the families at each size."""

from itertools import product
from typing import Annotated, Literal

import yaml

from mlxlab import terminal
from mlxlab.cli.print_json import print_json
from mlxlab.config.paths import conf_dir
from mlxlab.schema.constraints import Ge, Le
from mlxlab.terminal.markdown import markdown_table

FAMILIES = ("bert", "cnn_hybrid", "transformer")
SIZES = ("nano", "tiny", "small", "medium", "large", "xlarge")
Kind = Literal["classification", "language_modelling"]
KINDS: dict[str, Kind] = {"classifier": "classification", "LM": "language_modelling"}


def presets(
    vocab_size: Annotated[int, Ge(1), Le(100_000_000)] = 16_000,
    classes: Annotated[int, Ge(1), Le(1_000_000)] = 2,
    json: bool = False,
) -> None:
    """Prints the parameter counts as a Markdown table.

    Args:
        vocab_size: tokens of the vocabulary.
        classes: classes of the classifier.
        json: prints JSON instead of a table.
    """
    models = list(product(FAMILIES, KINDS))
    names = [f"{family} {kind}" for family, kind in models]
    parameters = {}
    by_size = []
    for size in SIZES:
        counts = [count(family, KINDS[kind], size, vocab_size, classes) for family, kind in models]
        parameters[size] = dict(zip(names, counts, strict=True))
        by_size.append([size, *(f"{number:,}" for number in counts)])
    if json:
        print_json({"parameters": parameters})
    else:
        terminal.show(markdown_table(["size", *names], by_size))


def count(family: str, kind: Kind, size: str, vocab_size: int, classes: int = 0) -> int:
    """Parameters of one model; its arrays are never allocated."""
    from mlxlab.models.build import build_model
    from mlxlab.models.model import count_parameters

    node: dict[str, object] = {}
    for option in (family, f"size/{size}"):
        file = conf_dir() / "model" / f"{option}.yaml"
        node |= yaml.safe_load(file.read_text(encoding="utf-8"))
    model = build_model(node, kind=kind, num_classes=classes, vocab_size=vocab_size)
    return count_parameters(model)

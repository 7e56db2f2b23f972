"""Parameters and recommended settings of the families at each size."""

from itertools import product
from typing import Annotated, Literal

import yaml

from mlxlab import terminal
from mlxlab.cli.print_json import print_json
from mlxlab.config.paths import conf_dir
from mlxlab.constraints import Ge, Le
from mlxlab.markdown import markdown_table

FAMILIES = ("bert", "cnn_hybrid", "transformer")
# Starting points, not measured optima.
LEARNING_RATES = {  # peak, AdamW: of new weights by model/size; of pretrained ones see `FINE_TUNING_RATES`
    "nano": 1e-3,
    "tiny": 1e-3,
    "small": 5e-4,
    "medium": 5e-4,
    "large": 3e-4,
    "xlarge": 3e-4,
}
FINE_TUNING_RATES = {"encoders": "2e-5", "decoders": "5e-5 to 1e-4"}
# Streamed text needs memory for rows of a batch in micro-batches and records in the window of the shuffle.
BY_MEMORY = {
    "below 8 GB": "data.batch_size=64 trainer.step.accumulate=8 trainer.step.dtype=bfloat16 data.shuffle.window=5000",
    "8 to 16 GB": "data.batch_size=128 trainer.step.accumulate=4 data.shuffle.window=10000",
    "above 16 GB": "data.batch_size=128 trainer.step.accumulate=2 data.shuffle.window=50000",
}
SIZES = ("nano", "tiny", "small", "medium", "large", "xlarge")
Kind = Literal["classification", "language_modelling"]
KINDS: dict[str, Kind] = {"classifier": "classification", "LM": "language_modelling"}


def presets(
    vocab_size: Annotated[int, Ge(1), Le(100_000_000)] = 16_000,
    classes: Annotated[int, Ge(1), Le(1_000_000)] = 2,
    json: bool = False,
) -> None:
    """Prints the parameter counts and recommended settings as Markdown tables.

    Args:
        vocab_size: tokens of the vocabulary.
        classes: classes of the classifier.
        json: prints JSON instead of tables.
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
        rates_json = {"new_weights": LEARNING_RATES, "pretrained": FINE_TUNING_RATES}
        print_json({"parameters": parameters, "learning_rates": rates_json, "by_memory": BY_MEMORY})
        return
    rates = [[f"new weights, {size}", f"{rate:g}"] for size, rate in LEARNING_RATES.items()]
    rates += [[f"pretrained {family}", rate] for family, rate in FINE_TUNING_RATES.items()]
    head = ["memory", "trainer=optimized data=streaming with"]
    tables = (
        markdown_table(["size", *names], by_size),
        markdown_table(["trainer.learning_rate of", "rate"], rates),
        markdown_table(head, list(BY_MEMORY.items()), "ll"),
    )
    terminal.show("\n\n".join(tables))


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

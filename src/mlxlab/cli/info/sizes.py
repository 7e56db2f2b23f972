"""Parameters and recommended settings of the families at each size, and the memory of a training step."""

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
BY_MEMORY = {  # of streamed text: rows of a batch in micro-batches, records in the window of the shuffle
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
    models = {
        f"{family} {name}": (family, kind) for family in FAMILIES for name, kind in KINDS.items()
    }
    counts = {
        size: [count(*model, size, vocab_size, classes) for model in models.values()]
        for size in SIZES
    }
    if json:
        parameters = {size: dict(zip(models, each, strict=True)) for size, each in counts.items()}
        rates_json = {"new_weights": LEARNING_RATES, "pretrained": FINE_TUNING_RATES}
        print_json({"parameters": parameters, "learning_rates": rates_json, "by_memory": BY_MEMORY})
        return
    by_size = [[size, *(f"{n:,}" for n in each)] for size, each in counts.items()]
    rates = [[f"new weights, {size}", f"{rate:g}"] for size, rate in LEARNING_RATES.items()]
    rates += [[f"pretrained {family}", rate] for family, rate in FINE_TUNING_RATES.items()]
    tables = (
        markdown_table(["size", *models], by_size),
        markdown_table(["trainer.learning_rate of", "rate"], rates),
        markdown_table(
            ["memory", "trainer=optimized data=streaming with"],
            [*map(list, BY_MEMORY.items())],
            "ll",
        ),
    )
    terminal.show("\n\n".join(tables))


def memory(
    vocab_size: Annotated[int, Ge(1), Le(100_000_000)] = 16_000,
    batch_size: Annotated[int, Ge(1), Le(1_000_000)] = 32,
    seq_len: Annotated[int, Ge(1), Le(100_000_000)] = 256,
    json: bool = False,
) -> None:
    """Prints the megabytes that a training step of the decoder holds as a Markdown table.

    Args:
        vocab_size: tokens of the vocabulary.
        batch_size: rows of a batch.
        seq_len: tokens of a row.
        json: prints JSON instead of a table: bytes.
    """
    table = dict[str, dict[str, int]]()
    for size in SIZES:
        parameters = count("transformer", "language_modelling", size, vocab_size)
        parts = footprint(parameters, vocab_size, batch_size, seq_len)
        table[size] = parts | {"sum": sum(parts.values())}
    if json:
        print_json(table)
        return
    rows = [
        [size, *(f"{bytes_ / 1e6:,.1f}" for bytes_ in parts.values())]
        for size, parts in table.items()
    ]
    terminal.show(markdown_table(["size", *table[SIZES[0]]], rows))


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
    return count_parameters(
        build_model(node | sizes, kind=kind, num_classes=classes, vocab_size=vocab_size)
    )

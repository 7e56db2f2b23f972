"""Prints what a training run needs, what a run was and how it ended, sizes of models, and frequencies of tokens.

    mlxlab info [model=transformer] [data=...] [any other key of train]
    mlxlab info run=RUN_FOLDER [--json]
    mlxlab info presets [vocab_size=16000] [classes=2]
    mlxlab info memory [vocab_size=16000] [batch_size=32] [seq_len=256]
    mlxlab info tokens [count=20] [out=token_frequencies.png] data=streaming data.source=FILE ...

Without a subcommand, for the run that the arguments compose as for train: parameters, operations per token, memory of
a training step by part and at its peak, whether that fits this machine, and the largest batch that does. No weights are
allocated: the graph of the step is traced and its evaluation replayed, as MLX evaluates it on a CPU, uncompiled.
Teachers are not counted.

run=     what was trained on which data, from which commit, with which settings that differ from the defaults; how it
         ended, or where it stands; its best metrics, its checkpoints, and the commands that continue or use it
presets  exact parameter counts of every family at every size: as a classifier, and as a language model (masked for
         the encoders, causal with a tied head for the decoder); recommended learning rates, batches by memory
memory   what training the decoder holds in float32, in MB of 10^6 bytes: n weights take 4 n bytes, their gradients
         4 n, AdamW 8 n, a batch of B rows of L tokens 16 B L + 8 B. The logits, B L V numbers, are the largest of
         the activations at small sizes; the others depend on model and step (python -m benchmarks measures them)
tokens   how often each token occurs in the training text of an experiment, which all further arguments compose as for
         train: a plot by rank, and the outliers at both ends. Outliers lie more than 1.5 interquartile ranges above
         the upper or below the lower quartile of the logarithms of the counts of tokens that occur (Tukey 1977)
"""

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import yaml

from mlxlab.cli.app import Subcommand, build_main
from mlxlab.config.paths import conf_dir
from mlxlab.config.suggest import nearest
from mlxlab.constraints import Ge, Le, Size
from mlxlab.errors import CannotCreateError, ConfigError, WriteError
from mlxlab.markdown import markdown_table

if TYPE_CHECKING:
    from mlxlab.data.text.order.outliers import TokenFrequencies
    from mlxlab.data.tokenizers.tokenizer import Tokenizer

FAMILIES = ("bert", "cnn_hybrid", "transformer")
SIZES = ("nano", "tiny", "small", "medium", "large", "xlarge")
Kind = Literal["classification", "language_modelling"]
KINDS: dict[str, Kind] = {"classifier": "classification", "LM": "language_modelling"}


def presets(
    vocab_size: Annotated[int, Ge(1), Le(100_000_000)] = 16_000, classes: Annotated[int, Ge(1), Le(1_000_000)] = 2
) -> None:
    """Prints the parameter counts and recommended settings as Markdown tables.

    Args:
        vocab_size: tokens of the vocabulary.
        classes: classes of the classifier.
    """
    from mlxlab.estimate.recipes import BY_MEMORY, FINE_TUNING_RATES, LEARNING_RATES

    models = {f"{family} {name}": (family, kind) for family in FAMILIES for name, kind in KINDS.items()}
    rows = [[size, *(f"{count(*model, size, vocab_size, classes):,}" for model in models.values())] for size in SIZES]
    print(markdown_table(["size", *models], rows))
    rates = [[f"new weights, {size}", f"{rate:g}"] for size, rate in LEARNING_RATES.items()]
    rates += [[f"pretrained {family}", rate] for family, rate in FINE_TUNING_RATES.items()]
    print("", markdown_table(["trainer.learning_rate of", "rate"], rates), "", sep="\n")
    print(markdown_table(["memory", "trainer=optimized data=streaming with"], [*map(list, BY_MEMORY.items())], "ll"))


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


def estimate(*, args: list[str]) -> None:
    """Prints what a training run needs."""
    from mlxlab import backend

    backend.prepare()
    from mlxlab.config.hydra.compose import Composer
    from mlxlab.estimate.report import report
    from mlxlab.experiment.outline import build_outline

    config = Composer(conf_dir(), args).checked_values(resolve=True)
    with tempfile.TemporaryDirectory() as folder:
        print(report(*build_outline(config, Path(folder)), backend.memory_budget()))


def describe(run: Path, json: bool = False) -> None:
    """Prints what a run was.

    Args:
        run: a run folder.
        json: prints a JSON object instead.
    """
    from mlxlab import backend

    backend.prepare()
    from mlxlab.experiment.description.run import describe_run
    from mlxlab.experiment.description.text import as_json, as_text

    description = describe_run(run)
    print(as_json(description) if json else as_text(description))


def tokens(count: Size = 20, out: Path = Path("token_frequencies.png"), *, args: list[str]) -> None:
    """Prints the outliers among the tokens of a text as a Markdown table, and plots all frequencies.

    Args:
        count: outliers that are listed of each end.
        out: file of the plot, in a format of matplotlib (png, pdf, svg).
    """
    if out.suffix not in (".png", ".pdf", ".svg"):
        raise ConfigError(f"out={out}: expected a name that ends in .png, .pdf or .svg")
    if not out.absolute().parent.is_dir():
        raise CannotCreateError(f"out={out}: there is no folder {out.absolute().parent}")
    from mlxlab.config.hydra.compose import Composer

    config = Composer(conf_dir(), args).checked_values(resolve=True)
    from mlxlab.callbacks.plots import plot_token_frequencies
    from mlxlab.config.paths import project_root
    from mlxlab.data.text.dataset import StreamingTextDataset
    from mlxlab.data.text.order.outliers import token_frequencies
    from mlxlab.experiment.build import build_data

    target = config["data"]["_target_"]
    if target != f"{StreamingTextDataset.__module__}.{StreamingTextDataset.__name__}":
        raise ConfigError(f"data._target_={target}: expected data=streaming")
    with tempfile.TemporaryDirectory() as folder:
        data = build_data(config, project_root(), None, Path(folder))
    assert isinstance(data, StreamingTextDataset)
    counts = data.count_tokens()
    frequencies = token_frequencies(counts.counts)
    print(f"{counts.line}\n\n{_outlier_table(frequencies, data.all_tokens, count)}\n")
    figure = plot_token_frequencies(frequencies)
    try:
        figure.savefig(out, dpi=120)
    except OSError as error:
        raise WriteError(f"out={out}: {error.strerror or error}") from None
    print(f"plot: {out}")


def _outlier_table(frequencies: "TokenFrequencies", tokenizer: "Tokenizer", count: int) -> str:
    """The outliers of both ends with their share of all tokens, and a line on each group."""
    total, rows, lines = frequencies.counts.sum(), [], []
    groups = {"frequent": frequencies.frequent_outliers, "rare": frequencies.rare_outliers[::-1]}
    limits = {"frequent": f"more than {frequencies.upper:.6g}", "rare": f"fewer than {frequencies.lower:.6g}"}
    for name, ranks in groups.items():
        share = frequencies.counts[ranks].sum() / total
        lines.append(f"{len(ranks)} {name} outliers ({limits[name]} times) make up {share:.2%} of all tokens")
        for rank in ranks[:count]:
            number, times = int(frequencies.ids[rank]), int(frequencies.counts[rank])
            rows.append(
                [name, _shown(tokenizer, number), f"{rank + 1}", f"{number}", f"{times}", f"{times / total:.4%}"]
            )
    lines.append(f"{len(frequencies.rare)} rare tokens make up at most 1 %; {frequencies.unused} tokens do not occur")
    return "\n".join([markdown_table(["outlier", "token", "rank", "id", "count", "share"], rows, "llr"), "", *lines])


def _shown(tokenizer: "Tokenizer", number: int) -> str:
    """A token as text, or as the vocabulary writes it if it is special or only part of a character."""
    text = tokenizer.decode([number])
    name = repr(text) if text and "\ufffd" not in text else ascii(tokenizer.inner.id_to_token(number))
    return name.replace("|", "\\|")


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


_SUBCOMMANDS = {
    "estimate": Subcommand(estimate, forward_prefix=""),
    "describe": Subcommand(describe),
    "presets": Subcommand(presets),
    "memory": Subcommand(memory),
    "tokens": Subcommand(tokens, forward_prefix=""),
}
_main = build_main(__doc__, _SUBCOMMANDS)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand. Without its name, `run=` is that of `describe`; other overrides are those of `estimate`."""
    args = ["json=true" if arg == "--json" else arg for arg in (sys.argv[1:] if argv is None else argv)]
    if args and args[0] not in _SUBCOMMANDS and (os.path.isdir(args[0]) or any(map(_names_run, args))):
        return _main(["describe", *args])
    return _main(["estimate", *args] if args and "=" in args[0] else args)


def _names_run(arg: str) -> bool:
    """Whether an argument is `run=`, or a misspelling of it that is no key of train: `describe` reports that."""
    key, equals, _ = arg.partition("=")
    return bool(equals) and nearest(key, ["run"]) is not None and not (conf_dir() / key).exists()

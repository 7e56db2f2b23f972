"""Says how large models are, without allocating them.

    info.py presets [vocab_size=16000] [classes=2]
    info.py memory [vocab_size=16000] [batch_size=32] [seq_len=256]

presets  the exact number of parameters of every family at every size: as a classifier, and as a language model (masked
         for the encoders, causal with a tied head for the decoder)
memory   what training the decoder holds in float32, in MB of 10^6 bytes: n weights take 4 n bytes, their gradients as
         much, AdamW 8 n, a batch of B rows of L tokens 16 B L + 8 B. Logits, B L V numbers, are the largest of the
         activations at small sizes; the others follow from the model and the step (python -m benchmarks measures)
"""

from collections.abc import Sequence
from typing import Any

import yaml

from mlxlab.cli.app import run_program
from mlxlab.config.paths import conf_dir
from mlxlab.config.suggest import suggestion
from mlxlab.errors import ConfigError
from mlxlab.markdown import markdown_table

FAMILIES = ("bert", "cnn_hybrid", "transformer")
SIZES = ("nano", "tiny", "small", "medium", "large", "xlarge")
KEYS = {
    "presets": {"vocab_size": 16_000, "classes": 2},
    "memory": {"vocab_size": 16_000, "batch_size": 32, "seq_len": 256},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    return run_program(__doc__, argv, _show)


def _show(words: list[str]) -> None:
    what, *rest = words
    if what not in KEYS:
        raise ConfigError(f"{what}: unknown{suggestion(what, list(KEYS))}")
    show = table if what == "presets" else memory
    print(show(**_numbers(rest, KEYS[what])))


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
    """Bytes in float32 and int32: tokens, mask, targets and weights of each place, and an id of 8 bytes of each row."""
    places = batch_size * seq_len
    return {
        "weights": 4 * parameters,
        "gradients": 4 * parameters,
        "AdamW": 8 * parameters,
        "batch": 16 * places + 8 * batch_size,
        "logits": 4 * places * vocab_size,
    }


def count(family: str, size: str, kind: Any, vocab_size: int, classes: int) -> int:
    """Parameters of one model, from arrays that are never made."""
    from mlxlab.models.build import build_model
    from mlxlab.models.model import count_parameters

    node = _read(f"model/{family}") | _read(f"model/size/{size}")
    return count_parameters(build_model(node, kind=kind, num_classes=classes, vocab_size=vocab_size))


def _read(option: str) -> dict[str, Any]:
    return yaml.safe_load((conf_dir() / f"{option}.yaml").read_text(encoding="utf-8"))


def _numbers(words: list[str], keys: dict[str, int]) -> dict[str, int]:
    numbers = dict(keys)
    for word in words:
        key, _, value = word.partition("=")
        if key not in keys:
            raise ConfigError(f"{word}: unknown key{suggestion(key, list(keys))}")
        if not value.isdecimal() or int(value) < 1:
            raise ConfigError(f"{word}: expected a whole number >= 1")
        numbers[key] = int(value)
    return numbers

"""Says how large models are, without allocating them.

    info.py presets [vocab_size=16000] [classes=2]

Prints the exact number of parameters of every family at every size: as a classifier, and as a language model (masked
for the encoders, causal with a tied head for the decoder).
"""

from collections.abc import Sequence
from typing import Any

import yaml

from mlxlab.commands.shell import run_program
from mlxlab.config.nearest import suggestion
from mlxlab.config.places import conf_dir
from mlxlab.errors import ConfigFault

FAMILIES = ("bert", "cnn_hybrid", "transformer")
SIZES = ("nano", "tiny", "small", "medium", "large", "xlarge")
KEYS = {"vocab_size": 16_000, "classes": 2}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    return run_program(__doc__, argv, _show)


def _show(words: list[str]) -> None:
    if words[0] != "presets":
        raise ConfigFault(f"{words[0]}: unknown{suggestion(words[0], ['presets'])}")
    print(table(**_numbers(words[1:])))


def table(vocab_size: int, classes: int) -> str:
    """The counts as a Markdown table."""
    kinds = ("classification", "language_modelling")
    lines = [
        f"| size | {' | '.join(f'{family} {word}' for family in FAMILIES for word in ('classifier', 'LM'))} |",
        f"|---|{'--:|' * 2 * len(FAMILIES)}",
    ]
    for size in SIZES:
        counts = [count(family, size, kind, vocab_size, classes) for family in FAMILIES for kind in kinds]
        lines.append(f"| {size} | {' | '.join(f'{number:,}' for number in counts)} |")
    return "\n".join(lines)


def count(family: str, size: str, kind: Any, vocab_size: int, classes: int) -> int:
    """Parameters of one model, from arrays that are never made."""
    from mlxlab.config import build
    from mlxlab.models.heads import head_for
    from mlxlab.models.model import Model, count_parameters

    node = _read(f"model/{family}") | _read(f"model/size/{size}")
    trunk = build(node, vocab_size=vocab_size)
    return count_parameters(Model(trunk, head_for(trunk, kind=kind, num_classes=classes)))


def _read(option: str) -> dict[str, Any]:
    return yaml.safe_load((conf_dir() / f"{option}.yaml").read_text(encoding="utf-8"))


def _numbers(words: list[str]) -> dict[str, int]:
    numbers = dict(KEYS)
    for word in words:
        key, _, value = word.partition("=")
        if key not in KEYS:
            raise ConfigFault(f"{word}: unknown key{suggestion(key, list(KEYS))}")
        if not value.isdecimal() or int(value) < 1:
            raise ConfigFault(f"{word}: wanted a whole number >= 1")
        numbers[key] = int(value)
    return numbers

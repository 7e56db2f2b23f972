"""Bounds how much a stranger's tokenizer.json may lengthen a text.

Its steps run one after the other, and each may replace a character by many: a few dozen of them
make more text than memory holds, at which the `tokenizers` library aborts the process.
"""

import base64
from itertools import chain
from math import prod
from typing import Any

from mlxlab.errors import DataError

STEPS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")  # keys of a tokenizer.json
MAX_GROWTH = 64  # Known models reach 18: a ligature that NFKC spells out.


def check_growth(file: Any) -> None:
    """Raises DataError if a text could become more than 64 times as long."""
    if not isinstance(file, dict):
        raise DataError("expected an object")
    for key in STEPS:
        growth = _growth(file.get(key))
        if growth > MAX_GROWTH:
            raise DataError(f"{key}: lengthens texts {growth:.3g} times, expected {MAX_GROWTH}")


def _growth(step: Any) -> float:
    """How many characters a step, or a sequence of steps, makes of one, at most."""
    match step:
        case {"type": "Sequence"}:  # Its steps are called `normalizers`, `decoders` and so on.
            lists = [inner for inner in step.values() if isinstance(inner, list)]
            return prod(map(_growth, chain.from_iterable(lists)))
        case {"type": "Replace", "pattern": {"String": str(literal)}, "content": str(content)}:
            return max(1.0, len(content) / max(len(literal), 1))
        case {"type": "Replace", "content": str(content)}:
            return 1.0 + len(content)  # A regular expression matches between characters too.
        case {"type": "Precompiled", "precompiled_charsmap": str(charsmap)}:
            table = base64.b64decode(
                charsmap
            )  # the size of a trie, the trie, texts that end in NUL
            texts = table[4 + int.from_bytes(table[:4], "little") :].split(b"\0")
            return max(len(text.decode("utf-8", "replace")) for text in texts)
        case {"type": "TemplateProcessing", "single": list(pieces)}:
            # It may repeat the text, and have tokens of its own.
            names = [piece["SpecialToken"]["id"] for piece in pieces if "SpecialToken" in piece]
            added = sum(len(step["special_tokens"][name]["ids"]) for name in names)
            return max(1, len(pieces) - len(names), added)
        case {"type": "ByteLevel"}:
            return 2.0  # A byte becomes a character of up to two bytes.
    return 1.0

"""The valid names closest to a typed one. Typing errors count: a letter added, left out, wrong, or two swapped."""

import os
from collections.abc import Iterable
from contextlib import suppress
from difflib import SequenceMatcher
from pathlib import Path

MIN_RATIO = 0.6  # similarity below which a name is no suggestion


def nearest_names(
    typed: str, names: Iterable[str], count: int = 1, min_ratio: float = MIN_RATIO
) -> list[str]:
    """Up to `count` names that `typed` may be a misspelling of, the closest first."""
    matcher, ranked = SequenceMatcher(b=typed), []
    for name in set(names):
        matcher.set_seq1(name)
        if (
            min(matcher.real_quick_ratio(), matcher.quick_ratio()) < min_ratio
        ):  # most of the names of a large folder
            continue
        if (ratio := matcher.ratio()) >= min_ratio:
            # Of two names at one distance the one with the same letters: `trian` is `train` rather than `trial`.
            ranked.append((distance(typed, name), sorted(typed) != sorted(name), -ratio, name))
    return [name for *_, name in sorted(ranked)[:count]]


def no_such_folder(path: Path, expected: str, suffix: str | None = None) -> str:
    """`outputs/ticket: no such folder; did you mean outputs/tickets?`, or what was expected if no name is near.

    Args:
        suffix: of files that may be meant too.
    """
    near = nearest_path(path, is_folder=True, suffix=suffix)
    if os.path.isfile(path):
        return f"{path}: a file, expected {expected}{near and f'; {near}'}"
    return f"{path}: no such folder; {near or f'expected {expected}'}"


def no_such_file(path: Path, title: str, expected: str) -> str:
    """`model.pretrained=a.gguf: no such file; did you mean b.gguf?`, or what was expected if no name is near."""
    return f"{title}: no such file; {nearest_path(path, is_folder=False) or f'expected {expected}'}"


def nearest_path(path: Path, *, is_folder: bool, suffix: str | None = None) -> str:
    """`did you mean outputs/tickets?`, or "" if nothing is near the first name of the path that does not exist.

    Args:
        suffix: of files that may be meant in place of a folder.
    """
    missing = path
    while missing.parent != missing and not os.path.lexists(missing.parent):
        missing = missing.parent
    is_folder = is_folder or missing != path
    names: list[str] = []
    with suppress(OSError):
        names = [
            each.name
            for each in missing.parent.iterdir()
            if each != path and (each.is_dir() == is_folder or each.suffix == suffix)
        ]
        names = nearest_names(missing.name, names)
    if not names:
        return ""
    near = missing.parent / names[0]
    whole = near / path.relative_to(missing)
    return f"did you mean {whole if os.path.exists(whole) else near}?"


def distance(first: str, second: str) -> int:
    """Damerau-Levenshtein distance, in its form without edits inside of swapped letters."""
    before: list[int] = []
    row = [*range(len(second) + 1)]
    for i, letter in enumerate(first, 1):
        before, last, row = row, before, [i]
        for j, other in enumerate(second, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == second[j - 2] and first[i - 2] == other:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]

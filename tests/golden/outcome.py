"""What a run led to, read from its folder without the program's code, and how two outcomes differ."""

import csv
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

LOSSES = ("train/loss", "valid/loss")
CHECKPOINT = re.compile(r"step-\d+")


@dataclass(frozen=True)
class Settings:
    """The composed config of a run.

    Args:
        choices: the chosen option of each config group.
        config: YAML.
    """

    choices: dict[str, str]
    config: str


@dataclass(frozen=True)
class Outcome:
    """What a case led to.

    Args:
        settings: of each of its runs.
        losses: name -> step -> value, as the CSV file writes it.
        arrays: "model/..." and "optimizer/..." -> digest of type, shape and bytes.
    """

    settings: list[Settings]
    losses: dict[str, dict[str, str]]
    arrays: dict[str, str]


def read_losses(run: Path) -> dict[str, dict[str, str]]:
    losses: dict[str, dict[str, str]] = {name: {} for name in LOSSES}
    with (run / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            for name in LOSSES:
                if row.get(name):
                    losses[name][row["step"]] = row[name]
    return losses


def checkpoints(run: Path) -> list[Path]:
    """The complete ones, oldest first."""
    paths = sorted((run / "checkpoints").glob("step-*"))
    return [path for path in paths if CHECKPOINT.fullmatch(path.name)]


def read_arrays(run: Path) -> dict[str, str]:
    """The newest checkpoint, and the frozen weights that it shares with the others."""
    newest = checkpoints(run)[-1]
    arrays = {}
    for kind in ("model", "optimizer"):
        digests = digest_safetensors(newest / f"{kind}.safetensors")
        arrays |= {f"{kind}/{name}": digest for name, digest in digests.items()}
    for path in sorted((run / "base").glob("*.safetensors")):
        digests = digest_safetensors(path)
        arrays |= {f"model/frozen/{name}": digest for name, digest in digests.items()}
    return dict(sorted(arrays.items()))


def digest_safetensors(path: Path) -> dict[str, str]:
    """Name -> digest of type, shape and bytes."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    digests = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        first, end = entry["data_offsets"]
        digest = hashlib.sha256(f"{entry['dtype']} {entry['shape']}".encode())
        digest.update(content[start + first : start + end])
        digests[name] = digest.hexdigest()[:16]
    return digests


def differences(expected: Outcome, outcome: Outcome) -> list[str]:
    """A line for each loss and each kind of array that differs; none for equal outcomes."""
    lines = []
    for name in LOSSES:
        before, after = expected.losses[name], outcome.losses[name]
        steps = sorted(before.keys() | after.keys(), key=int)
        changed = [step for step in steps if before.get(step) != after.get(step)]
        if changed:
            step = changed[0]
            values = f"expected {before.get(step)}, got {after.get(step)}"
            lines.append(f"{name}: from step {step}, {values}")
    for kind in ("model", "optimizer"):
        lines += array_differences(kind, expected.arrays, outcome.arrays)
    return lines


def array_differences(kind: str, before: dict[str, str], after: dict[str, str]) -> list[str]:
    names = sorted(name for name in before.keys() | after.keys() if name.startswith(f"{kind}/"))
    changed = [name for name in names if before.get(name) != after.get(name)]
    if not changed:
        return []
    named = ", ".join(changed[:3])
    if len(changed) > 3:
        named += ", ..."
    return [f"{kind}: {len(changed)} of {len(names)} arrays: {named}"]

"""What the overrides of a resume ask for, compared with what a growth schedule made of the run."""

from collections.abc import Sequence
from typing import NamedTuple

from mlxlab.checkpoint.state import ChangedSettings
from mlxlab.checkpoint.store import Checkpoint
from mlxlab.config.hydra.overrides import cli_overrides, config_folders, group_choices
from mlxlab.dotted_keys import KeyPath, split_key, value_at
from mlxlab.experiment.build import SETTINGS, Config
from mlxlab.experiment.resume.changes import (
    Changes,
    differences,
    requested_keys,
)
from mlxlab.models.build import train_new_weights

OF_A_START = (
    "pretrained",
    "init_from",
)  # keys of a `model` node that an architecture does not keep


class Requests(NamedTuple):
    """Keys that were typed with the value of the config, where the run has another one since an operation of growth.

    `changes` are those typed for the first time: (value in the run, requested one). `repeated` are those typed for the
    run before, as where a command is run again; they ask for nothing.
    """

    changes: Changes
    repeated: Changes

    def lines(self) -> list[str]:
        """Of what stays as it is, for the terminal."""
        return [
            f"{key}={typed} was typed for this run before, and is {grown} by now: it stays so"
            for key, (grown, typed) in self.repeated.items()
        ]


def requests_against_growth(cfg: Config, checkpoint: Checkpoint) -> Requests:
    """Those of the current command line for a run with the config `cfg`, which is resumed from a checkpoint."""
    metadata, typed = checkpoint.state["metadata"], cli_overrides()
    choices, folders = (metadata["choices"], group_choices()), config_folders()
    first = requested_keys(typed, metadata["overrides"], choices, folders)
    typed_at_all = requested_keys(typed, [], choices, folders)
    grown = {
        key: each
        for key, each in _grown_values(cfg, checkpoint).items()
        if is_requested(key, typed_at_all)
    }
    changes = {key: each for key, each in grown.items() if is_requested(key, first)}
    return Requests(changes, {key: each for key, each in grown.items() if key not in changes})


def is_requested(key: str, requested: Sequence[KeyPath]) -> bool:
    """Whether a key, a node that it is in, or a key in it is among those requested."""
    path = split_key(key)
    return any(path[: len(each)] == each[: len(path)] for each in requested)


def _grown_values(cfg: Config, checkpoint: Checkpoint) -> Changes:
    """Keys of model and settings that are equal in both configs and differ in the run: (value in the run, in `cfg`)."""
    saved = checkpoint.state["metadata"]["config"]
    configured = train_new_weights(cfg["model"])
    grown = {
        key: value
        for key, value in checkpoint.state["architecture"].items()
        if key not in OF_A_START
    }
    before = {"model": train_new_weights(saved["model"])}
    changes = {
        key: (old, new)
        for key, (old, new) in differences(
            grown, {key: configured.get(key) for key in grown}, "model"
        ).items()
        if value_at(before, key) == new
    }
    settings: ChangedSettings = checkpoint.state["progress"].settings
    for key, name in SETTINGS.items():
        value = settings.batch_size if name == "resizes" else vars(settings)[name]
        if value not in (None, value_at(cfg, key)) and value_at(saved, key) == value_at(cfg, key):
            changes[key] = (value, value_at(cfg, key))
    return changes

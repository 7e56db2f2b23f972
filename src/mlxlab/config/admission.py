"""Decides what a stored config may decide: that of a run folder, a checkpoint, a lock or the journal of a sweep.

Anyone may have written it. It says what a run is: its model, how its data is read, the numbers of its trainer. Where
to write, whom to call and which credentials to use come from the command line and from the user's own config files,
unless `trust_folder=true` is typed.
"""

import logging
import re
from collections.abc import Collection, Iterator, Sequence
from copy import deepcopy
from typing import Any

from mlxlab.errors import NotAllowedError
from mlxlab.schema.dotted_keys import join_key, override_name, value_at, walk
from mlxlab.terminal.wording import one_line

Tree = dict[str, Any]

TRUST = "trust_folder"
ADMITTED = (
    *("model", "data", "trainer", "seed", "objective", "name", "tags", "rerun"),
    *("checkpointing.every_steps", "checkpointing.keep", "checkpointing.background"),
    *("resume_policy.min_match", "resume_policy.optimizer_transfer"),
    "backend.native",
)
# The callbacks that change what is trained; those of the user are not known to.
TRAINING_CALLBACKS = (".AdaptiveBatchSize", ".EarlyStopping", ".GrowthSchedule")
NO_TRACKER = {"_target_": "mlxlab.tracking.tracker.NoTracker"}

# What records, sends and writes nothing.
_QUIET: Tree = {
    "tracking": NO_TRACKER,
    "cloud": {"_target_": "mlxlab.run.storage.NoCloud"},
    "callbacks": {},
    "resume": None,
    "signals": {"_target_": "mlxlab.run.signals.SignalHandler", "requeue": False},
}
_OWN_PACKAGE = "mlxlab."
_ADDRESS = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://")
_OPTION = re.compile(
    r"[\w-]+(/[\w-]+)*"
)  # An option of Hydra may also be the path of any YAML file.
_GROUPS = ("model", "data", "trainer", "experiment", "debug", "sweep")
_TRAINING_NAMES = ("adaptive_batch", "early_stopping", "growth")  # They are in conf/callbacks.
_OF_SWEEPS = (
    *("hydra.sweeper", "hydra.launcher", "hydra.sweep.subdir"),
    "hydra.callbacks.parent_run.report",
)
_SEARCHED = "hydra.sweeper.params."  # Keys to search, each the name of an override.
_UNREPORTED = ("resume", "resume_policy.allow_data_change")
_MAX_NAMED = 300  # characters

logger = logging.getLogger(__name__)


def typed_keys(typed: Sequence[str]) -> list[str]:
    """The keys that overrides set; a group as a key."""
    return [override_name(text).replace("/", ".") for text in typed]


def is_trusted(typed: Sequence[str]) -> bool:
    """Whether the overrides of a command line say that the folder they name is the user's own."""
    return f"{TRUST}=true" in map(str.lower, typed)


def admit(
    stored: Tree, current: Tree, name: str, typed: Collection[str] = (), *, trusted: bool = False
) -> Tree:
    """The current config with what a stored one may decide; one line names what was left out.

    Args:
        stored: valid in every key, and resolved.
        current: as the command line and the config files of the user compose it.
        name: of what holds the stored config, for messages.
        typed: the keys and groups of the command line, whose values the caller sees to.

    Raises:
        NotAllowedError: it has an address to read from, or a callback of the user's own, which nobody typed.
    """
    config = deepcopy(stored) if trusted else admitted_config(stored, current)
    types_tracking = any(key.partition(".")[0] == "tracking" for key in typed)
    if types_tracking and (not trusted or current["tracking"] == NO_TRACKER):
        config["tracking"] = current["tracking"]
    if trusted:
        return config
    refuse_addresses(config, current, name, typed)
    left_out = [key for key in _differing(stored, config) if not _is_in(key, typed)]
    own = own_callbacks(stored)
    refuse_left_out([key for key in left_out if _is_in(key, own)], name)
    if left_out:
        keys = one_line(", ".join(left_out), _MAX_NAMED)
        advice = f"type them again, or {TRUST}=true if the folder is yours"
        logger.info(f"{name}: left out: {keys}; {advice}")
    return config


def admitted_config(stored: Tree, current: Tree | None = None) -> Tree:
    """The current config with what a stored one may decide; nothing is refused or said.

    Args:
        current: None is a config that records, sends and writes nothing.
    """
    if current is None:
        current = stored | _QUIET
    config = {key: deepcopy(value) for key, value in current.items() if key != TRUST}
    for key in ADMITTED:
        parent, _, name = key.rpartition(".")
        source = value_at(stored, parent)
        target = value_at(config, parent)
        if isinstance(source, dict) and isinstance(target, dict) and name in source:
            target[name] = deepcopy(source[name])
    # The callbacks that the run has, but for those that train with the settings of the user.
    config["callbacks"] = {}
    for name, node in stored["callbacks"].items():
        if _is_ours(node) and str(value_at(node, "_target_")).endswith(TRAINING_CALLBACKS):
            config["callbacks"][name] = deepcopy(node)
        elif name in current["callbacks"]:
            config["callbacks"][name] = current["callbacks"][name]
    if stored["tracking"] == NO_TRACKER:
        config["tracking"] = dict(NO_TRACKER)  # Recording less than the user would is harmless.
    return config


def _is_ours(node: object) -> bool:
    """Whether mlxlab ships a component; null is none of the user's either."""
    return str(value_at(node, "_target_") or _OWN_PACKAGE).startswith(_OWN_PACKAGE)


def own_callbacks(stored: Tree) -> list[str]:
    """The keys of callbacks whose class mlxlab does not ship."""
    return [
        join_key("callbacks", name)
        for name, node in stored["callbacks"].items()
        if not _is_ours(node)
    ]


def refuse_left_out(keys: Sequence[str], name: str) -> None:
    """NotAllowedError if one of some keys is left out that may change the weights."""
    if keys:
        raise NotAllowedError(
            f"{name}: {keys[0]} may change the weights; type it again, or {TRUST}=true"
        )


def refuse_addresses(config: Tree, current: Tree, name: str, typed: Collection[str]) -> None:
    """NotAllowedError for an address that would be read, and is neither typed nor in the current config."""
    for key, value in walk({root: config.get(root) for root in ("model", "data", "trainer")}):
        is_address = "://" in key or (isinstance(value, str) and _ADDRESS.match(value))
        if is_address and value_at(current, key) != value and not _is_in(key, typed):
            text = one_line(f"{key}={value}", 120)
            raise NotAllowedError(
                f"{name}: {text}: an address would be read; type it again, or {TRUST}=true"
            )


def _differing(stored: Tree, config: Tree, path: str = "") -> Iterator[str]:
    """The uppermost keys with a value in a stored config that is not the one in another."""
    for name, value in stored.items():
        key = join_key(path, name)
        other = config.get(name)
        if key in _UNREPORTED or value == other:
            continue
        is_node = isinstance(value, dict) and isinstance(other, dict)
        if is_node and value_at(value, "_target_") == value_at(other, "_target_"):
            yield from _differing(value, config[name], key)
        else:
            yield key


def _is_in(key: str, nodes: Collection[str]) -> bool:
    return any(key == node or key.startswith((f"{node}.", f"{node}[")) for node in nodes)


def admitted_choices(choices: dict[str, str]) -> dict[str, str]:
    """The stored options (config group -> option) that may be composed again."""
    return {group: option for group, option in choices.items() if may_override(f"{group}={option}")}


def may_override(text: str) -> bool:
    """Whether an override that a folder records may be used again without being typed."""
    target, _, value = text.partition("=")
    name = override_name(text)
    key = name.replace("/", ".")
    if text == "tracking=none" or text.startswith("~callbacks."):
        return True
    if "@" in target or "://" in value:
        return False
    if "/" in name or name in _GROUPS:
        return key.partition(".")[0] in _GROUPS and _is_plain_option(value)
    if key.startswith("callbacks."):
        return "_target_" not in text and key.split(".")[1] in _TRAINING_NAMES
    return _is_in(key, ADMITTED)


def may_sweep(text: str) -> bool:
    """Whether an override in the journal of a sweep may be used again without being typed."""
    target, _, value = text.partition("=")
    name = override_name(text)
    if name == "resume":
        return "://" not in value
    if name.startswith(_SEARCHED):
        return may_override(f"{name.removeprefix(_SEARCHED)}={value}")
    if not name.startswith("hydra"):
        return may_override(text)
    if "/" in name and not _is_plain_option(value):
        return False
    return not {"@", "{"} & {*target, *value} and _is_in(name.replace("/", "."), _OF_SWEEPS)


def _is_plain_option(value: str) -> bool:
    """Whether a value names options of a config group; Hydra also takes the path of any YAML file for one."""
    names = re.split(r"[\s,()\[\]'\"]+", value)
    return all(_OPTION.fullmatch(name) for name in names if name)

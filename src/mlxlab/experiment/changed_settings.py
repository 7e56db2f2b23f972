"""The settings of a stored config that differ from the defaults of its options."""

import re
from collections.abc import Mapping
from typing import TypedDict

from mlxlab.config.hydra.compose import defaults
from mlxlab.config.issues import MISSING, UNRESOLVED
from mlxlab.errors import UserError
from mlxlab.experiment.resume.changes import differences

_NAME = re.compile(r"[a-z][a-z0-9_]{0,60}(/[a-z][a-z0-9_]{0,60}){0,3}")
_OF_ONE_START = {"resume", "rerun", "trust_folder", "name"}  # not what was trained


class ChangedSettings(TypedDict):
    """Options that are not chosen by default, by group, and keys with [default, value]; null where there is none.

    `fault` is why the keys are unknown: an option of a package that is not installed, for example.
    """

    options: dict[str, str]
    keys: dict[str, list[object]]
    fault: str


def changed_settings(config: Mapping[str, object], choices: Mapping[str, str]) -> ChangedSettings:
    """The options among `choices` (group -> option), and the keys of a resolved config that differ from theirs."""
    _, usual = defaults([])
    options = {group: option for group, option in choices.items() if usual.get(group) != option}
    if not config:
        return {
            "options": options,
            "keys": {},
            "fault": "the run ended before its config was stored",
        }
    names = [name for item in options.items() for name in item if not _NAME.fullmatch(name)]
    if names or any(group.startswith("hydra") for group in options):
        return {
            "options": options,
            "keys": {},
            "fault": f"no option of this name: {(names or ['hydra'])[0][:60]}",
        }
    try:
        usual_config, _ = defaults([f"{group}={option}" for group, option in options.items()])
    except UserError as error:
        return {"options": options, "keys": {}, "fault": str(error).partition("\n")[0]}
    old, new = (
        {key: node[key] for key in node if key not in _OF_ONE_START}
        for node in (usual_config, config)
    )
    keys = {key: [_known(before), after] for key, (before, after) in differences(old, new).items()}
    return {"options": options, "keys": keys, "fault": ""}


def _known(value: object) -> object:
    return None if value is UNRESOLVED or value == MISSING else value

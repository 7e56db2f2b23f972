"""A job of a sweep from another one that differs from it in values alone: Hydra takes 0.2 s to compose one."""

import copy

from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf, read_write

from mlxlab.config.hydra.overrides import as_typed, parse
from mlxlab.dotted_keys import override_name


def derive(base: DictConfig | None, texts: list[str]) -> DictConfig | None:
    """The config that Hydra composes of these overrides, except for the number; None if Hydra must compose it.

    Args:
        base: a composed job of the same sweep, if there is one.
    """
    if base is None:
        return None
    before = as_typed(base.hydra.overrides.task)
    if [*map(override_name, texts)] != [*map(override_name, before)]:
        return None
    parsed, issues = parse([text for text in texts if text not in before], multirun=False)
    if issues or not all(_sets_value(base, override) for override in parsed.values()):
        return None
    job = copy.deepcopy(base)
    for override in parsed.values():
        OmegaConf.update(job, override.key_or_group, override.value())
    with read_write(job.hydra):
        names = job.hydra.job.config.override_dirname
        lines = [text for text in texts if override_name(text) not in names.exclude_keys]
        dirname = names.item_sep.join(sorted(lines))
        job.hydra.job.override_dirname = dirname.replace("=", names.kv_sep)
        job.hydra.overrides.task = texts
    return job


def _sets_value(base: DictConfig, override: Override) -> bool:
    """Whether an override sets a key that is there to a value, and chooses no option of a group."""
    key = override.key_or_group
    if override.type != OverrideType.CHANGE or key in base.hydra.runtime.choices:
        return False
    # Where there is no such key, the default is found, which is no value either.
    value = OmegaConf.select(base, key, default=base, throw_on_resolution_failure=False)
    return not OmegaConf.is_config(value)

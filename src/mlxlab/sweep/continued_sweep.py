"""The command of a sweep, and whether the sweep in a folder can be continued by another one."""

import shlex
from pathlib import Path

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from mlxlab.config.admission import TRUST
from mlxlab.config.hydra.overrides import as_typed, parse
from mlxlab.config.issues import one_line
from mlxlab.config.resume_overrides import override_name
from mlxlab.errors import ConfigError
from mlxlab.experiment.sweep_start import SweepStart, untyped

_ADVICE = "continue with the same, or choose another hydra.sweep.dir"


def sweep_start(config: DictConfig) -> SweepStart:
    """The command of a sweep, from its config."""
    own = as_typed(config.hydra.overrides.hydra)
    typed = [
        text for text in own if not text.lstrip("+").startswith(("hydra.mode=", "hydra.sweep.dir="))
    ]
    folders = [
        source.path
        for source in config.hydra.runtime.config_sources
        if source.provider == "command-line"
    ]
    return SweepStart(
        format=1,
        overrides=[*typed, *as_typed(config.hydra.overrides.task)],
        config_dir=str(folders[0]) if folders else None,
        config_name=str(config.hydra.job.config_name),
        objective=str(config.objective),
    )


def continuation(folder: Path, config: DictConfig, *overrides: str) -> str:
    """The command that runs the jobs or trials that are missing in a folder, as the user of that sweep types it."""
    if untyped(sweep_start(config)):
        overrides = (f"{TRUST}=true", *overrides)
    return f"mlxlab train {shlex.join([f'sweep.resume={folder}', *overrides])}"


def check_continued(stored: SweepStart, start: SweepStart, folder: Path) -> None:
    """Raises ConfigError, a line per problem, if a command would mix other jobs with those of the sweep in a folder.

    Values of a swept key may be added: also to a key that had one value, and now has several.
    """
    problems = []
    for key in ("objective", "config_name"):
        if stored[key] != start[key]:
            problems.append(f"{key}={start[key]}: the sweep in {folder} has {stored[key]}")
    if not problems:
        problems = _fixed_problems(_by_name(stored), _by_name(start), folder)
    if problems:
        raise ConfigError("\n".join(f"{problem}; {_ADVICE}" for problem in problems[:10]))


def _fixed_problems(
    stored: dict[str, Override], typed: dict[str, Override], folder: Path
) -> list[str]:
    """The overrides of all jobs that only one of two commands has, or that have different values."""
    problems = []
    for name in dict.fromkeys([*stored, *typed]):
        before, now = stored.get(name), typed.get(name)
        if before is not None and now is not None:
            is_added = before.is_sweep_override() or now.is_sweep_override()
            if not is_added and (before.type, before.value()) != (now.type, now.value()):
                add = (
                    f" ({name}={_value(before)},{_value(now)} adds jobs)"
                    if _is_plain(before, now)
                    else ""
                )
                problems.append(
                    f"{now.input_line}: the sweep in {folder} has {before.input_line}{add}"
                )
        elif now is not None and not now.is_sweep_override():
            problems.append(f"{now.input_line}: not in the command of the sweep in {folder}")
        elif before is not None and not before.is_sweep_override():
            problems.append(
                f"{before.input_line}: missing, but in the command of the sweep in {folder}"
            )
    return problems


def _by_name(start: SweepStart) -> dict[str, Override]:
    """The overrides of jobs, not of Hydra."""
    overrides, _ = parse(
        [text for text in start["overrides"] if not _is_of_hydra(text)], multirun=True
    )
    return {override_name(text): override for text, override in overrides.items()}


def _is_of_hydra(text: str) -> bool:
    return override_name(text).replace("/", ".").startswith("hydra.")


def _is_plain(*overrides: Override) -> bool:
    return all(isinstance(each.value(), str | int | float) for each in overrides)


def _value(override: Override) -> str:
    return one_line(str(override.input_line).partition("=")[2], 40)

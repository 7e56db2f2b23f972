"""The command of a sweep, and whether the sweep in a folder can be continued by another one."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from mlxlab.config.admission import TRUST
from mlxlab.config.hydra.overrides import as_typed, parse
from mlxlab.config.resume_overrides import override_name
from mlxlab.errors import ConfigError
from mlxlab.experiment.sweep_start import SweepStart, untyped

_SAME = {"hydra/sweeper": "sweeper", "objective": "objective", "config_name": "config_name"}
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
        sweeper=str(config.hydra.runtime.choices["hydra/sweeper"]),
        jobs=[],
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
    for key, name in _SAME.items():
        before = stored[name]  # type: ignore[literal-required]
        now = start[name]  # type: ignore[literal-required]
        if before != now:
            problems.append(f"{key}={now}: the sweep in {folder} has {before}")
    problems = problems or [*_fixed_problems(_by_name(stored), _by_name(start), folder)]
    if problems:
        raise ConfigError("\n".join(f"{problem}; {_ADVICE}" for problem in problems[:10]))


def _fixed_problems(
    stored: dict[str, Override], typed: dict[str, Override], folder: Path
) -> Iterator[str]:
    """The overrides of all jobs that only one of two commands has, or that have different values."""
    for name in dict.fromkeys([*stored, *typed]):
        pair = [each[name] for each in (stored, typed) if name in each]
        if any(override.is_sweep_override() for override in pair):
            continue
        if len(pair) < 2 or (pair[0].type, pair[0].value()) != (pair[1].type, pair[1].value()):
            before = stored[name].input_line if name in stored else f"no {name}"
            now = typed[name].input_line if name in typed else f"no {name}"
            yield f"{now}: the sweep in {folder} has {before}"


def _by_name(start: SweepStart) -> dict[str, Override]:
    """The overrides of jobs, not of Hydra."""
    names = {text: override_name(text).replace("/", ".") for text in start["overrides"]}
    overrides, _ = parse([text for text in names if not names[text].startswith("hydra.")], True)
    return {override_name(text): override for text, override in overrides.items()}

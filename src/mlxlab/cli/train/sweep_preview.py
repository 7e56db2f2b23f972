"""`--dry-run` of a sweep: its jobs, or the search space, as text."""

from typing import TYPE_CHECKING

from mlxlab.analysis.sweeps.sweep_jobs import overrides_by_key
from mlxlab.markdown import markdown_table

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlxlab.config.hydra.compose import Composer

_MAX_ROWS = 100
_KEY = "sweep"


def names_sweep(overrides: list[str]) -> bool:
    """Whether an option of the group `sweep` is typed: it makes several jobs, as `-m` does, unless hydra.mode=RUN."""
    pairs = [text.lstrip("+").partition("=") for text in overrides]
    is_named = any(name == _KEY and option not in ("", "null") for name, _, option in pairs)
    return is_named and ("hydra.mode", "=", "RUN") not in pairs


def preview_sweep(composer: "Composer", config: "DictConfig") -> str:
    """What a valid sweep would run."""
    sampler = config.hydra.sweeper.get("sampler", "grid")
    return _jobs(composer, config) if sampler == "grid" else _search(config, str(sampler))


def _jobs(composer: "Composer", config: "DictConfig") -> str:
    """A row per job with what differs between them."""
    from mlxlab.config.hydra.overrides import parse
    from mlxlab.config.hydra.sweep_jobs import jobs_to_check

    typed, _ = parse(composer.overrides, multirun=True)
    points = [overrides_by_key(texts) for texts in jobs_to_check(typed, config, [])]
    keys = [key for key in points[0] if len({point.get(key) for point in points}) > 1]
    rows = [
        [str(number), *(point[key] for key in keys)]
        for number, point in enumerate(points[:_MAX_ROWS])
    ]
    fixed = " ".join(f"{key}={value}" for key, value in points[0].items() if key not in keys)
    more = [f"... and {len(points) - _MAX_ROWS} more"] if len(points) > _MAX_ROWS else []
    count = f"{len(points)} job{'s' * (len(points) != 1)}"
    return "\n".join(
        [
            f"{count}; all: {fixed or 'the defaults'}",
            "",
            markdown_table(["job", *keys], rows, "l"),
            *more,
        ]
    )


def _search(config: "DictConfig", sampler: str) -> str:
    """The search space, and how many trials are drawn from it."""
    from mlxlab.config.hydra.overrides import as_typed
    from mlxlab.config.hydra.search_space import read_space

    sweeper = config.hydra.sweeper
    params = {str(key): str(value) for key, value in sweeper.params.items()}
    fixed, space = read_space(as_typed(config.hydra.overrides.task), params)
    trials = "trials" if sweeper.trials is None else f"{sweeper.trials} trials"
    pruner = "" if sweeper.pruner == "none" else f", pruned by {sweeper.pruner}"
    lines = [
        f"{trials} by {sampler}{pruner}; objective {config.objective}; all: {' '.join(fixed) or 'the defaults'}"
    ]
    return "\n".join(
        [
            *lines,
            "",
            markdown_table(["key", "values"], [[each.key, str(each)] for each in space], "l"),
        ]
    )

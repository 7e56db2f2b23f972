"""What no single signature can say: rules between keys. Each says what is wrong, or nothing."""

from collections.abc import Callable, Iterator
from typing import Any

from mlxlab.config.faults import Finding


def broken(tree: dict[str, Any]) -> Iterator[Finding]:
    """The rules that do not hold. A rule whose keys are not there, or not numbers, has nothing to say."""
    for path, other, rule in _RULES:
        values = _at(tree, path), _at(tree, other)
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            message = rule(*values)
            if message:
                yield Finding(path, message)
    if _at(tree, "data.folds") is None and _at(tree, "data.fold"):
        yield Finding("data.fold", f"fold {_at(tree, 'data.fold')} of none; set data.folds too")


def _divides(heads: Any, width: Any) -> str | None:
    return None if heads < 1 or width % heads == 0 else f"{heads} heads do not divide a width of {width}"


def _divides_heads(groups: Any, heads: Any) -> str | None:
    return None if groups < 1 or heads % groups == 0 else f"{groups} key-value heads do not divide {heads} heads"


def _fits_run(warmup: Any, steps: Any) -> str | None:
    return (
        f"a warm-up of {warmup} updates is longer than the run of {steps}" if warmup >= 1 and warmup > steps else None
    )


def _within(fold: Any, folds: Any) -> str | None:
    return f"wanted a fold below {folds} (they count from 0), got {fold}" if fold >= folds else None


def _enough(folds: Any, _: Any) -> str | None:
    return None if folds >= 2 else f"wanted at least 2 folds, got {folds}"


Rule = Callable[[Any, Any], str | None]

_RULES: tuple[tuple[str, str, Rule], ...] = (
    ("model.num_heads", "model.width", _divides),
    ("model.num_kv_heads", "model.num_heads", _divides_heads),
    ("trainer.schedule.warmup", "trainer.max_steps", _fits_run),
    ("data.fold", "data.folds", _within),
    ("data.folds", "data.folds", _enough),
)


def _at(tree: Any, path: str) -> Any:
    for name in path.split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree

"""The search space of a sweep: which values each key may take, as Hydra's override grammar writes them."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import Any, TypeAlias

from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    RangeSweep,
    ValueType,
)
from hydra.errors import HydraException
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from mlxlab.errors import ConfigError
from mlxlab.terminal.wording import one_line

_MAX_VALUES = 10_000
_LOG = "log"

Point = dict[str, Any]  # key -> value: a text, or a number of a range or an interval
Distribution: TypeAlias = CategoricalDistribution | FloatDistribution | IntDistribution


@dataclass(frozen=True)
class Domain:
    """The values of a key: `text` as they were typed, and their distribution for Optuna."""

    key: str
    text: str
    distribution: Distribution

    @property
    def values(self) -> Sequence[Any] | None:
        """All values; None if they are too many."""
        distribution = self.distribution
        if isinstance(distribution, CategoricalDistribution):
            return distribution.choices
        low = distribution.low
        step = distribution.step
        if step is None or (distribution.high - low) / step >= _MAX_VALUES:
            return None
        return [low + index * step for index in range(round((distribution.high - low) / step) + 1)]

    @property
    def ends(self) -> Sequence[Any]:
        """Values whose validity stands for that of all: the ends of numbers, every choice."""
        distribution = self.distribution
        if isinstance(distribution, CategoricalDistribution):
            return distribution.choices
        return distribution.low, distribution.high


def distributions(space: list[Domain]) -> dict[str, BaseDistribution]:
    return {domain.key: domain.distribution for domain in space}


def split_space(overrides: Iterable[Override]) -> tuple[list[str], list[Domain]]:
    """(overrides with one value, search space); ConfigError, a line per fault, for what cannot be searched."""
    fixed = []
    domains: list[Domain] = []
    faults = []
    for override in overrides:
        text = str(override.input_line)
        if not override.is_sweep_override():
            fixed.append(text)
            continue
        try:
            domains.append(_domain(override))
        except (ConfigError, HydraException, ValueError) as error:
            faults.append(f"{one_line(text, 80)}: {one_line(str(error))}")
    if faults:
        raise ConfigError("\n".join(faults))
    if not domains:
        expected = "expected a key with interval(...), range(...) or choice(...)"
        raise ConfigError(f"hydra/sweeper: nothing to search; {expected}")
    return fixed, domains


def override_texts(point: Point) -> list[str]:
    return [f"{key}={_rounded(value)}" for key, value in point.items()]


def _rounded(value: Any) -> Any:
    """A value without rounding errors: 0.3 for 0.1 + 0.2."""
    return float(f"{value:.12g}") if isinstance(value, float) else value


def num_points(domains: list[Domain]) -> float:
    """The number of points; infinite if a key has too many values."""
    sizes = [math.inf if domain.values is None else len(domain.values) for domain in domains]
    return math.prod(sizes)


def probes(domains: list[Domain]) -> Iterator[Point]:
    """Points that use each choice and both ends of numbers once: a sum of jobs to check, not a product."""
    first = {domain.key: domain.ends[0] for domain in domains}
    yield first
    for domain in domains:
        for end in domain.ends[1:]:
            yield {**first, domain.key: end}


def _domain(override: Override) -> Domain:
    text = one_line(str(override.input_line).partition("=")[2], 200)
    if override.key_or_group == "objective":
        raise ConfigError("the objective decides which trial is best; expected one metric")
    if override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        raise ConfigError("expected the options by name, got glob(...)")
    return Domain(override.get_key_element(), text, _distribution(override))


def _distribution(override: Override) -> Distribution:
    value = override.value()
    if isinstance(value, IntervalSweep):
        return _interval(value)
    assert isinstance(value, ChoiceSweep | RangeSweep)
    if value.shuffle or value.tags:
        raise ConfigError("expected values without shuffle(...) and tag(...)")
    if not isinstance(value, RangeSweep):
        return CategoricalDistribution(_first(override.sweep_string_iterator()))
    numbers = _first(value.range())
    if isinstance(numbers[0], int):
        return IntDistribution(min(numbers), max(numbers), step=abs(value.step))
    # The floats that Hydra counts up carry rounding errors, which Optuna does not take.
    last = float(Decimal(str(value.start)) + (len(numbers) - 1) * Decimal(str(value.step)))
    low, high = sorted([float(numbers[0]), last])
    return FloatDistribution(low, high, step=abs(value.step))


def _first(values: Iterable[Any]) -> list[Any]:
    """The different values, of which there must be at most `_MAX_VALUES`."""
    first = [*dict.fromkeys(islice(values, _MAX_VALUES + 1))]
    if not 0 < len(first) <= _MAX_VALUES:
        got = "more" if first else "none"
        raise ConfigError(f"expected 1 to {_MAX_VALUES:,} values, got {got}")
    return first


def _interval(value: IntervalSweep) -> Distribution:
    low = value.start
    high = value.end
    assert low is not None
    assert high is not None
    if not -math.inf < low < high < math.inf:
        raise ConfigError(f"expected interval(low,high) with low < high, got {low!r} and {high!r}")
    if value.tags - {_LOG}:
        raise ConfigError(f"expected tag({_LOG}, ...), got {', '.join(sorted(value.tags))}")
    log = _LOG in value.tags
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)

"""The search space of a sweep: which values each key may take, as Hydra's override grammar writes them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    RangeSweep,
    ValueType,
)
from hydra.errors import HydraException

from mlxlab.config.hydra.overrides import parse
from mlxlab.config.issues import ConfigIssue, one_line
from mlxlab.errors import ConfigError

_MAX_VALUES = 10_000
_LOG = "log"


@dataclass(frozen=True)
class Values:
    """`a,b`, `choice(a,b)` or, ordered, `range(5)`: the values of a key, as overrides write them."""

    key: str
    texts: tuple[str, ...]
    ordered: bool

    def __str__(self) -> str:
        return one_line(",".join(self.texts), 200) + (" (ordered)" if self.ordered else "")

    def ends(self) -> list[str]:
        """Values whose validity stands for that of all: the ends of a range, every one of a choice."""
        return (
            [self.texts[0], self.texts[-1]]
            if self.ordered and len(self.texts) > 1
            else list(self.texts)
        )


@dataclass(frozen=True)
class Interval:
    """`interval(0,1)`: numbers from `low` to `high`, both included; `int(interval(1,8))`: integers."""

    key: str
    low: float
    high: float
    log: bool
    integer: bool

    def __str__(self) -> str:
        text = f"interval({self.low!r},{self.high!r})"
        text = f"int({text})" if self.integer else text
        return f"tag(log, {text})" if self.log else text

    def ends(self) -> list[str]:
        return [repr(self.low), repr(self.high)]


Domain = Values | Interval
Point = dict[str, str | int | float]  # key -> value: text of `Values`, a number of an `Interval`


def read_space(overrides: list[str], params: dict[str, str]) -> tuple[list[str], list[Domain]]:
    """(overrides of every trial, search space) of valid overrides as typed and of `hydra.sweeper.params`.

    Raises ConfigError for an override that cannot be read.
    """
    typed, issues = parse(overrides, multirun=True)
    in_file, file_issues = parse([f"{key}={value}" for key, value in params.items()], multirun=True)
    fixed, domains, space_issues = split_space({**in_file, **typed})
    if problems := [*issues, *file_issues, *space_issues]:
        raise ConfigError("\n".join(f"{issue.path}: {issue.message}" for issue in problems))
    return fixed, domains


def split_space(
    overrides: dict[str, Override],
) -> tuple[list[str], list[Domain], list[ConfigIssue]]:
    """(overrides with one value, search space, issues); of several overrides of a key the last one counts."""
    last = {override.get_key_element(): (text, override) for text, override in overrides.items()}
    fixed, domains, issues = [], list[Domain](), []
    for text, override in last.values():
        if not override.is_sweep_override():
            fixed.append(text)
            continue
        try:
            domains.append(_domain(override))
        except (ConfigError, HydraException) as error:
            issues.append(ConfigIssue(one_line(text, 80), one_line(str(error))))
    return fixed, domains, issues


def override_texts(point: Point) -> list[str]:
    return [
        f"{key}={value if isinstance(value, str) else repr(value)}" for key, value in point.items()
    ]


def probes(domains: list[Domain]) -> Iterator[list[str]]:
    """Overrides that use each choice and both ends of each interval once: a sum of jobs to check, not a product."""
    first = {domain.key: domain.ends()[0] for domain in domains}
    yield [f"{key}={text}" for key, text in first.items()]
    for domain in domains:
        for end in domain.ends()[1:]:
            yield [f"{key}={text}" for key, text in {**first, domain.key: end}.items()]


def _domain(override: Override) -> Domain:
    value, key = override.value(), override.get_key_element()
    if override.key_or_group == "objective":
        raise ConfigError("the objective decides which trial is best; give one metric")
    if override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        raise ConfigError("glob(...) is not supported in a search; give the options by name")
    assert isinstance(value, ChoiceSweep | RangeSweep | IntervalSweep)
    _check_tags(value.tags)
    if isinstance(value, IntervalSweep):
        return _interval(key, value)
    if value.shuffle:
        raise ConfigError("shuffle(...): the sampler chooses the order; leave it out")
    if value.tags:
        raise ConfigError("tag(log, ...) is for interval(...)")
    texts = list(dict.fromkeys(islice(override.sweep_string_iterator(), _MAX_VALUES + 1)))
    if not 0 < len(texts) <= _MAX_VALUES:
        expected = f"expected 1 to {_MAX_VALUES:,} values"
        raise ConfigError(
            f"{expected}, got {'none' if not texts else 'more; interval(a,b) has no such limit'}"
        )
    return Values(key, tuple(texts), ordered=isinstance(value, RangeSweep))


def _interval(key: str, value: IntervalSweep) -> Interval:
    low, high = value.start, value.end
    assert low is not None
    assert high is not None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"expected interval(low,high) with low < high, got {low!r} and {high!r}")
    log = _LOG in value.tags
    if log and low <= 0:
        raise ConfigError(f"expected a lower end above 0 on a logarithmic scale, got {low!r}")
    return Interval(key, low, high, log, integer=isinstance(low, int) and isinstance(high, int))


def _check_tags(tags: set[str]) -> None:
    for tag in sorted(tags - {_LOG}):
        raise ConfigError(f"unknown tag {tag}; expected {_LOG}")

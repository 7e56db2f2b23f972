"""Learning-rate schedules: functions of (peak, steps) that return a rate: a function of the update, counted from 0.

`warmup` rises linearly, (step + 1) / warmup of the peak; a value below 1 is a fraction of all steps. `final` is the
share of the peak that is reached at the last update and kept afterwards.
"""

from collections.abc import Callable

import mlx.core as mx

from mlxlab.constraints import Fraction, NonNegative
from mlxlab.errors import ConfigError

LRSchedule = Callable[[mx.array], mx.array]
Schedule = Callable[..., LRSchedule]  # (peak=, steps=) -> rate


def constant(warmup: NonNegative, *, peak: float, steps: int | None) -> LRSchedule:
    """Warm-up, then the peak.

    Args:
        warmup: updates of linear warm-up, or below 1 their share of all updates.
    """
    return _after_warmup(peak, steps, warmup, lambda progress: mx.ones_like(progress))


def linear(warmup: NonNegative, final: Fraction, *, peak: float, steps: int | None) -> LRSchedule:
    """Warm-up, then a straight line down.

    Args:
        warmup: updates of linear warm-up, or below 1 their share of all updates.
        final: share of the peak at the end.
    """
    _need_length("linear", steps)
    return _after_warmup(peak, steps, warmup, lambda progress: 1 - (1 - final) * progress)


def cosine(warmup: NonNegative, final: Fraction, *, peak: float, steps: int | None) -> LRSchedule:
    """Warm-up, then half a cosine down (Loshchilov and Hutter 2017).

    Args:
        warmup: updates of linear warm-up, or below 1 their share of all updates.
        final: share of the peak at the end.
    """
    _need_length("cosine", steps)
    return _after_warmup(
        peak, steps, warmup, lambda progress: final + (1 - final) * 0.5 * (1 + mx.cos(mx.array(mx.pi) * progress))
    )


def wsd(warmup: NonNegative, decay: Fraction, final: Fraction, *, peak: float, steps: int | None) -> LRSchedule:
    """Warm-up, stable, decay (Hu et al. 2024): the peak until the last `decay` of the run, then a straight line down.

    Where the length of the run is not known the peak is kept to the end.

    Args:
        warmup: updates of linear warm-up, or below 1 their share of all updates.
        decay: share of the updates after warm-up that the way down takes.
        final: share of the peak at the end.
    """

    def shape(progress: mx.array) -> mx.array:
        down = mx.clip((progress - (1 - decay)) / max(decay, 1e-9), 0, 1)
        return 1 - (1 - final) * down

    return _after_warmup(peak, steps, warmup, shape)


def _after_warmup(peak: float, steps: int | None, warmup: float, shape: Callable[[mx.array], mx.array]) -> LRSchedule:
    if 0 < warmup < 1 and steps is None:
        raise ConfigError(f"trainer.schedule.warmup={warmup}: a share of a run of unknown length; give updates instead")
    rise = int(warmup * (steps or 0)) if warmup < 1 else int(warmup)
    if steps is not None and rise > steps:
        raise ConfigError(f"trainer.schedule.warmup={rise}: longer than the run of {steps} updates")
    last = max((steps or 0) - 1 - rise, 1)  # the last update, counted from the end of warm-up

    def rate(step: mx.array) -> mx.array:
        step = mx.array(step).astype(mx.float32)
        progress = mx.clip((step - rise) / last, 0, 1) if steps is not None else mx.zeros_like(step)
        return peak * mx.where(step < rise, (step + 1) / max(rise, 1), shape(progress))

    return rate


def _need_length(name: str, steps: int | None) -> None:
    if steps is None:
        raise ConfigError(f"trainer/schedule={name}: needs the length of the run; set trainer.max_steps or use wsd")

"""Learning-rate schedules: functions of (peak, steps) that return the learning rate as a function of the step.

Steps count from 0. Warm-up is linear, (step + 1) / warmup of the peak. `final_lr_ratio` is the fraction of the peak
that is reached after the last step, so that no step has the rate 0.
"""

from collections.abc import Callable

import mlx.core as mx

from mlxlab.errors import ConfigError
from mlxlab.schema.constraints import Fraction, NonNegative

LRSchedule = Callable[[mx.array], mx.array]
Schedule = Callable[..., LRSchedule]  # (peak=, steps=) -> LRSchedule


def constant(warmup: NonNegative, *, peak: float, steps: int | None) -> LRSchedule:
    """Warm-up, then the peak.

    Args:
        warmup: steps of linear warm-up; below 1 a fraction of all steps.
    """
    return _after_warmup(peak, steps, warmup, lambda progress: mx.ones_like(progress))


def linear(
    warmup: NonNegative, final_lr_ratio: Fraction, *, peak: float, steps: int | None
) -> LRSchedule:
    """Warm-up, then linear decay.

    Args:
        warmup: steps of linear warm-up; below 1 a fraction of all steps.
        final_lr_ratio: fraction of the peak after the last step.
    """
    _require_length("linear", steps)
    return _after_warmup(peak, steps, warmup, lambda progress: 1 - (1 - final_lr_ratio) * progress)


def cosine(
    warmup: NonNegative, final_lr_ratio: Fraction, *, peak: float, steps: int | None
) -> LRSchedule:
    """Warm-up, then half a cosine (Loshchilov and Hutter 2017).

    Args:
        warmup: steps of linear warm-up; below 1 a fraction of all steps.
        final_lr_ratio: fraction of the peak after the last step.
    """
    _require_length("cosine", steps)

    def shape(progress: mx.array) -> mx.array:
        return final_lr_ratio + (1 - final_lr_ratio) * 0.5 * (
            1 + mx.cos(mx.array(mx.pi) * progress)
        )

    return _after_warmup(peak, steps, warmup, shape)


def wsd(
    warmup: NonNegative,
    decay_fraction: Fraction,
    final_lr_ratio: Fraction,
    *,
    peak: float,
    steps: int | None,
) -> LRSchedule:
    """Warm-up, peak, then linear decay at the end of the run, if its length is known (WSD, Hu et al. 2024).

    Args:
        warmup: steps of linear warm-up; below 1 a fraction of all steps.
        decay_fraction: fraction of the steps after warm-up in which the learning rate decays.
        final_lr_ratio: fraction of the peak after the last step.
    """

    def shape(progress: mx.array) -> mx.array:
        decay = mx.clip((progress - (1 - decay_fraction)) / max(decay_fraction, 1e-9), 0, 1)
        return 1 - (1 - final_lr_ratio) * decay

    return _after_warmup(peak, steps, warmup, shape)


def _after_warmup(
    peak: float, steps: int | None, warmup: float, shape: Callable[[mx.array], mx.array]
) -> LRSchedule:
    if 0 < warmup < 1 and steps is None:
        raise ConfigError(
            f"trainer.schedule.warmup={warmup}: a fraction of a run of unknown length; expected a number of steps"
        )
    rise = int(warmup)
    if warmup < 1:
        rise = int(warmup * (steps or 0))
    if steps is not None and rise > steps:
        raise ConfigError(f"trainer.schedule.warmup={rise}: longer than the run of {steps} steps")
    length = max((steps or 0) - rise, 1)

    def schedule(step: mx.array) -> mx.array:
        step = mx.array(step).astype(mx.float32)
        if steps is None:
            progress = mx.zeros_like(step)
        else:
            progress = mx.clip((step - rise) / length, 0, 1)
        return peak * mx.where(step < rise, (step + 1) / max(rise, 1), shape(progress))

    return schedule


def _require_length(name: str, steps: int | None) -> None:
    if steps is None:
        raise ConfigError(
            f"trainer/schedule={name}: needs the length of the run; set trainer.max_steps or use wsd"
        )

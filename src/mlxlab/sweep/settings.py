"""The settings of `hydra.sweeper` and `hydra.launcher`: the schema of their options in conf/hydra."""

from typing import Annotated, Literal, TypedDict

from mlxlab.schema.constraints import Count, Ge, Lt, NonNegative, Positive, Size

Params = dict[str, str | int | float | bool]
SamplerName = Literal["tpe", "random"]
PrunerName = Literal["none", "asha"]


class GridSettings(TypedDict):
    """The settings of `hydra/sweeper=grid`.

    Args:
        params: more values by override: `seed: range(3)`.
        retry_failed: run jobs again that failed in an earlier command.
    """

    params: Params
    retry_failed: bool


class SearchSettings(TypedDict):
    """The settings of `hydra/sweeper=search`.

    Args:
        sampler: tpe (Bergstra et al. 2011) or random.
        trials: of the whole study, at most one for each point of the space; null is all of them for random where they
            are finite, otherwise 20.
        seed: of the sampler; that of each trial is the key `seed`.
        startup_trials: of tpe: random trials before the first that is modelled.
        params: search space of a config file: override by key, `trainer.learning_rate: interval(1e-5,1e-3)`.
        pruner: which trials stop early: none, or those of asha (Li et al. 2020).
        min_budget: of the first rung, in steps if trainer.max_steps is set, else in epochs; null is the length of a run /
            reduction_factor^3, or that of the first evaluation.
        reduction_factor: a rung has this many times the budget of the one below; one trial in as many is promoted.
    """

    sampler: SamplerName
    trials: Size | None
    seed: Annotated[int, Ge(0), Lt(2**32)]
    startup_trials: Count
    params: Params
    pruner: PrunerName
    min_budget: Size | None
    reduction_factor: Annotated[int, Ge(2)]


class ProcessSettings(TypedDict):
    """The settings of `hydra/launcher=isolated`.

    Args:
        n_jobs: jobs at a time. Each writes its output to `output.log` in its folder.
        timeout: seconds after which a job is stopped and has failed; null is no limit.
        retries: how often a job that crashed (not one that raised an error) starts again, from its latest checkpoint.
        memory_limit: GB that a job may take; none starts unless one as large as the largest so far fits in, the first
            one as large as the limit. Null is no limit.
        grace: seconds that a job which is stopped has for saving, before it is killed.
    """

    n_jobs: Size
    timeout: Positive | None
    retries: Count
    memory_limit: Positive | None
    grace: NonNegative

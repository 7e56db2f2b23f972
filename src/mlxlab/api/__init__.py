"""The Python API: compose a config, train it in this process, look at the run, predict with its model.

    import mlxlab

    config = mlxlab.compose("data.target=Survived", data=frame)
    config.trainer.epochs = 3
    run = mlxlab.train(config)
    run.history, run.evaluate(other_rows), run.report()
    mlxlab.load(run).predict(other_rows)

Every error that the caller can correct is a `mlxlab.errors.UserError`, which a notebook shows as one line.
"""

from typing import TYPE_CHECKING

from mlxlab.api.config import Config, compose
from mlxlab.api.run import Run, load, train

if TYPE_CHECKING:
    from mlxlab.api.estimators import Classifier, Regressor

__all__ = ["Classifier", "Config", "Regressor", "Run", "compose", "load", "train"]


def __getattr__(name: str) -> object:
    """The estimators, with which scikit-learn is imported."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mlxlab.api import estimators

    return vars(estimators)[name]

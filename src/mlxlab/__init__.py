"""Train, distil and compare models with Apple MLX: Hydra configs, exact resume, MLflow tracking."""

TYPE_CHECKING = False  # Importing `typing` takes longer than importing this package.
if TYPE_CHECKING:
    from mlxlab.api import Classifier as Classifier
    from mlxlab.api import Config as Config
    from mlxlab.api import Regressor as Regressor
    from mlxlab.api import Run as Run
    from mlxlab.api import compose as compose
    from mlxlab.api import load as load
    from mlxlab.api import train as train

__version__ = "0.1.0"
__all__ = ["Classifier", "Config", "Regressor", "Run", "__version__", "compose", "load", "train"]


def __getattr__(name: str) -> object:
    """Imports the Python API when it is first used, so that `import mlxlab` takes no time."""
    if name not in __all__:
        raise AttributeError(f"module 'mlxlab' has no attribute {name!r}")
    from mlxlab import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return __all__

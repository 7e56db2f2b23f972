"""Refuses layers with adapters, or of quantised weights, where an operation cannot change these."""

from collections.abc import Iterable

from mlxlab.errors import ConfigError


def require_plain_layers(title: str, paths: Iterable[str], kind: str = "an adapter") -> None:
    """ConfigError if there are `paths` of parameters that only adapters or quantised layers have."""
    paths = list(paths)
    layers = {path: path.rpartition(".")[0].removesuffix(".base") for path in paths}
    if quantized := next((path for path in paths if path.endswith(".scales")), None):
        raise ConfigError(f"{title}: expected {layers[quantized]} not quantised")
    if paths:
        remedy = "the operation merge_lora folds adapters into the weights"
        raise ConfigError(f"{title}: expected {layers[paths[0]]} without {kind}; {remedy}")

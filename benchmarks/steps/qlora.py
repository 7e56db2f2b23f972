"""A training step with adapters on a base in 4 bits, compared with a float32 base and with MLX's own product.

Steps with MLX's product take minutes on a CPU, so there are few of them, without a warm-up.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from benchmarks.alternate import Trial, table
from benchmarks.config import read_config
from benchmarks.new_process import run_module
from benchmarks.steps.adapted_model import adapted, random_batch
from benchmarks.steps.steps import NEEDS
from mlxlab.config.instantiate import instantiate
from mlxlab.data.batch import Batch
from mlxlab.errors import ConfigError
from mlxlab.models.adapters.quantized import ARRAYS, QuantizedLayer, QuantizedLinear
from mlxlab.models.layers import named_parameters
from mlxlab.models.model import Model
from mlxlab.models.pretrained.config import read_config as read_shape
from mlxlab.models.pretrained.load import resolve
from mlxlab.training.device_batch import to_device
from mlxlab.training.losses.loss import CrossEntropyLoss

RATE = 1e-4
FLOAT, MLX_LM = "LoRA, float32 base", "mlx-lm, same BLAS"
Step = Callable[[], Any]


def qlora(
    model: str,
    rows: int = 2,
    length: int = 256,
    rounds: int = 5,
    slow_rounds: int = 1,
    compare_with: str = "",
) -> str:
    """Seconds of optimized, compiled steps on random tokens, and the bytes of the frozen base.

    Ratios are of medians: of elapsed seconds, and of CPU seconds of all threads, which other processes disturb less.

    Args:
        model: folder or GGUF file of a pretrained decoder.
        rows, length: shape of a batch.
        rounds: steps of each variant, in turn.
        slow_rounds: rounds that have a step with MLX's product too; 0 leaves it out.
        compare_with: mlx_lm takes its trainer for that, with mlxlab's BLAS and as installed; it is not a dependency.
    """
    if compare_with not in ("", "mlx_lm"):
        raise ConfigError(f"compare_with={compare_with}: expected mlx_lm")
    if compare_with and find_spec("mlx_lm") is None:
        raise ConfigError(
            f"compare_with=mlx_lm: mlx_lm is not installed; run: {NEEDS['mlx_lm'][1]}"
        )
    path = resolve(model)
    shape = dict(read_shape(path))
    batch = random_batch(rows, length, int(str(shape["vocab_size"])))
    float_base, base = adapted(path, None), adapted(path, 4)
    variants = {FLOAT: _step(float_base, batch), "QLoRA": _step(base, batch)}
    sizes = {FLOAT: _base_bytes(float_base), "QLoRA": _base_bytes(base)}
    slow: dict[str, Step] = {}
    if slow_rounds and compare_with == "mlx_lm":
        from benchmarks.steps.qlora_mlx_lm import mlx_lm_step

        slow[MLX_LM], sizes[MLX_LM] = mlx_lm_step(base, shape, batch)
    elif slow_rounds:
        plain = _with_mlx_layers(adapted(path, 4))
        slow["QLoRA, MLX's product"] = _step(plain, batch, compile="never")
        sizes["QLoRA, MLX's product"] = _base_bytes(plain)
    trials = _alternate(variants, slow, rounds, slow_rounds)
    if MLX_LM in slow:
        trials.append(_as_installed(path, rows, length, slow_rounds))
        sizes[trials[-1].name] = sizes[MLX_LM]
    ratios = ("of LoRA", "of QLoRA")
    head = (
        "variant",
        "s/step",
        *ratios,
        "CPU s/step",
        *(f"CPU, {name}" for name in ratios),
        "base MB",
        "of float32",
    )
    lines: list[tuple[str, ...]] = [head, *(_row(trial, trials, sizes) for trial in trials)]
    return table(
        f"steps of {rows} x {length} tokens with {path.name}, rank 8, on {mx.default_device()}",
        lines,
    )


def _alternate(
    variants: dict[str, Step], slow: dict[str, Step], rounds: int, slow_rounds: int
) -> list[Trial]:
    """As `alternate`; the slow variants follow in the first `slow_rounds` rounds, without a warm-up."""
    for step in variants.values():
        step()
    trials = {name: Trial(name) for name in (variants | slow)}
    for number in range(max(rounds, slow_rounds)):
        for name, step in (variants | (slow if number < slow_rounds else {})).items():
            trials[name].run(step)
    return list(trials.values())


def _as_installed(path: Path, rows: int, length: int, rounds: int) -> Trial:
    """mlx-lm in a process of its own, with the BLAS that MLX's wheel contains."""
    args = [str(path.absolute()), str(rows), str(length), str(rounds)]
    with TemporaryDirectory() as folder:
        measured = run_module("steps.qlora_mlx_lm", args, folder)
    return Trial("mlx-lm as installed", measured["seconds"], measured["cpu"])


def _row(trial: Trial, trials: list[Trial], sizes: dict[str, int]) -> tuple[str, ...]:
    elapsed = [f"{trial.median / other.median:.2f} x" for other in trials[:2]]
    cpu = [f"{trial.cpu_median / other.cpu_median:.2f} x" for other in trials[:2]]
    size = sizes[trial.name]
    share = f"{size / sizes[FLOAT]:.3f} x"
    return (
        trial.name,
        f"{trial.median:.2f}",
        *elapsed,
        f"{trial.cpu_median:.2f}",
        *cpu,
        f"{size / 1e6:.0f}",
        share,
    )


def _base_bytes(model: nn.Module) -> int:
    trained = dict(tree_flatten(model.trainable_parameters()))
    return sum(leaf.nbytes for path, leaf in named_parameters(model).items() if path not in trained)


def _step(model: Model, batch: Batch, **settings: Any) -> Step:
    optimizer = instantiate(read_config("trainer/optimizer/adamw"))(learning_rate=RATE)
    optimizer.init(model.trainable_parameters())
    node = read_config("trainer/step/optimized") | {"compile": "always"} | settings
    step = instantiate(node)(model=model, loss=CrossEntropyLoss(0.0), optimizer=optimizer)
    return lambda: step(to_device(batch))


def _with_mlx_layers(model: Model) -> Model:
    """The same model with MLX's own quantised layers."""
    new: list[tuple[str, nn.Module]] = []
    for path, layer in model.named_modules():
        if isinstance(layer, QuantizedLayer):
            own = mlx_layer(layer)
            own.freeze()
            new.append((path, own))
    model.update_modules(tree_unflatten(new))
    return model


def mlx_layer(layer: QuantizedLayer) -> nn.QuantizedLinear | nn.QuantizedEmbedding:
    """MLX's own layer with the same weights."""
    bits, group = layer.packing.bits, layer.packing.group_size
    outputs, inputs = layer.weight.shape[0], layer.weight.shape[1] * 32 // bits
    own: nn.QuantizedLinear | nn.QuantizedEmbedding
    if isinstance(layer, QuantizedLinear):
        own = nn.QuantizedLinear(inputs, outputs, False, group, bits)
    else:
        own = nn.QuantizedEmbedding(outputs, inputs, group, bits)
    for name in ARRAYS:
        own[name] = layer[name]
    return own

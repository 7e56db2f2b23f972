"""Quantises the weights of a trained model, and reports what that saves and costs: size and metrics."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import mlx.core as mx

from mlxlab.config.admission import refuse_addresses
from mlxlab.config.paths import project_root
from mlxlab.data.dataset import DataModule
from mlxlab.errors import ConfigError, DataError
from mlxlab.evaluation.parts.data import build_data
from mlxlab.files.atomic import without_nonfinite
from mlxlab.inference.export import check_output, restore_single, write_export
from mlxlab.inference.restore import RestoredModel
from mlxlab.models.adapters.apply import QUANTIZATION, packing_of, quantize
from mlxlab.models.adapters.lora import merged_node, merged_parameters
from mlxlab.models.build import build_model
from mlxlab.models.layers import named_parameters
from mlxlab.models.model import Model, count_parameters
from mlxlab.models.options import Quantization
from mlxlab.terminal.tables import markdown_table
from mlxlab.training.evaluate import evaluate

BeforeAfter = tuple[float, float]


@dataclass(frozen=True)
class QuantizationReport:
    """What quantisation changed; each pair is before and after.

    Attributes:
        layers: how many were quantised.
        parameters: how many the whole model has.
        bytes: size of all weights in memory.
        metrics: valid/NAME and test/NAME; empty if nothing was evaluated.
    """

    bits: int
    group_size: int
    mode: str
    layers: int
    parameters: int
    bytes: tuple[int, int]
    metrics: dict[str, BeforeAfter]

    def text(self) -> str:
        """Markdown."""
        before, after = self.bytes
        sizes = [f"{size / 1e6:.2f}" for size in self.bytes]
        rows = [["size of the weights, MB", *sizes, f"{after / before:.2f} x"]]
        for name, pair in self.metrics.items():
            rows.append([name, *(f"{value:.4f}" for value in pair), f"{pair[1] - pair[0]:+.4f}"])
        table = markdown_table(["", "before", "after", "change"], rows)
        layers = (
            f"{self.layers} layers in {self.bits} bits ({self.mode}, groups of {self.group_size})"
        )
        return f"{layers}, of a model of {self.parameters:,} parameters\n\n{table}"


def quantize_run(
    run: Path,
    out: Path,
    checkpoint: str,
    options: Quantization,
    *,
    with_metrics: bool,
    max_batches: int | None,
) -> QuantizationReport:
    """Writes the model of a run with quantised weights, adapters folded in, and the report, as a new folder.

    Raises:
        ConfigError: an ensemble, a format that MLX lacks, a pattern without matches, or nothing can be quantised.
        DataError: the data of the run changed. CannotCreateError: `out` exists. WriteError: it cannot be written.
        InputNotFoundError, CheckpointUnavailableError, NotAllowedError: see `restore_model`.
    """
    packing_of(options)
    check_output(run, out)
    restored = restore_single(run, checkpoint)
    data = None
    if with_metrics:
        data = _data_of(restored, run)
    node = merged_node(restored.checkpoint.state["architecture"])
    model, layers = _quantised_model(restored, node, options)
    metrics: dict[str, BeforeAfter] = {}
    if data is not None:
        metrics = _metrics((restored.model, model), data, max_batches)
    report = QuantizationReport(
        cast(int, options.bits),
        options.group_size,
        options.mode,
        len(layers),
        count_parameters(model),
        (_bytes(restored.model), _bytes(model)),
        metrics,
    )
    files = {
        "summary.md": f"# {out.name}\n\n{restored.checkpoint.path}\n\n{report.text()}\n",
        "quantization.json": json.dumps(without_nonfinite(asdict(report)), indent=1) + "\n",
    }
    quantization = {
        "_target_": f"{Quantization.__module__}.{Quantization.__name__}",
        **asdict(options),
    }
    write_export(
        out, restored, named_parameters(model), {**node, "quantization": quantization}, files
    )
    return report


def _data_of(restored: RestoredModel, run: Path) -> DataModule:
    """The data of the run; DataError if it changed since, NotAllowedError if it is read from an address."""
    refuse_addresses(restored.config, {}, str(run), ())
    data = build_data(
        restored.config, project_root(), restored.config_dir, run, restored=restored.config_dir
    )
    saved = restored.checkpoint.state["metadata"]["data"]
    if (data.task, data.fingerprint) != (restored.encoder.task, saved):
        way = "evaluate=false quantises without metrics"
        raise DataError(f"{run}: the data of this run changed since it was trained; {way}")
    return data


def _quantised_model(
    restored: RestoredModel, node: dict[str, Any], options: Quantization
) -> tuple[Model, list[str]]:
    """The model of `node` with the weights of the run, quantised, and the paths of the quantised layers."""
    task = restored.encoder.task
    model = build_model(
        node,
        kind=task.kind,
        vocab_size=restored.checkpoint.state["vocab_size"],
        num_classes=task.num_classes,
        pair_separator=task.pair_separator,
        load_pretrained=False,
    )
    model.load_weights(list(merged_parameters(restored.model).items()))
    layers = quantize(model, options)
    if not layers:
        raise ConfigError(f"{QUANTIZATION}: no layer can be quantised; try another group_size")
    mx.eval(model.parameters())
    model.eval()
    return model, layers


def _bytes(model: Model) -> int:
    return sum(array.nbytes for array in named_parameters(model).values())


def _metrics(
    models: Sequence[Model], data: DataModule, max_batches: int | None
) -> dict[str, BeforeAfter]:
    """The metrics of the validation data, and of the test data if there is any, before and after."""
    metrics: dict[str, BeforeAfter] = {}
    for split, batches in (("valid", data.valid), ("test", data.test)):
        if next(iter(batches), None) is None:
            continue
        results = [evaluate(model, batches, data.task, limit=max_batches) for model in models]
        before, after = (result.metrics for result in results if result is not None)
        metrics |= {f"{split}/{name}": (value, after[name]) for name, value in before.items()}
    return metrics

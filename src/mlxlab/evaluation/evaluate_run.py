"""Evaluates the model of a run, on the validation data of the run or on other data."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlxlab.config.admission import refuse_addresses
from mlxlab.config.paths import project_root
from mlxlab.data.batch import Batch, Task
from mlxlab.data.dataset import DataModule, LabelledRows, RowEncoder, Table
from mlxlab.data.text.dataset import TextEncoder
from mlxlab.errors import ConfigError, DataError, UserError
from mlxlab.evaluation.labelled_results import add_predictions, class_names, compare_with_baselines
from mlxlab.evaluation.parts.data import Config, build_data
from mlxlab.inference.eval_data import (
    forget_source,
    open_eval_rows,
    override_data,
    override_node,
    refuse_without_effect,
    text_batches,
)
from mlxlab.inference.restore import RestoredModel
from mlxlab.inference.text_generator import load_published, with_pretrained
from mlxlab.models.baselines.predict import Baseline, predict_baselines
from mlxlab.record import run_record as records
from mlxlab.record.run_record import RunRecord, SplitResult
from mlxlab.terminal.messages import activity
from mlxlab.training.evaluate import Evaluation, evaluate
from mlxlab.training.metrics.labelled import as_thresholds, main_metric
from mlxlab.views.pages import evaluation_lines
from mlxlab.views.run_tables import Slices
from mlxlab.views.verdict import MODEL

# The keys of the data that an evaluation reads; all others are those that the model was trained with.
NO_EFFECT = frozenset({"eval_batch_size"})  # The result does not depend on it.
ROW_KEYS = NO_EFFECT | {"source", "reading", "on_error", "max_left_out"}
TEXT_KEYS = ROW_KEYS | {"text_column", "seq_len", "packing", "shuffle", "max_valid_examples"}
CONVERSATION_KEYS = NO_EFFECT | {"source", "on_error", "seq_len", "max_valid_examples"}
CONVERSATION_KEYS |= {"layout", "loss_on", "truncation"}
TOKENS_AT_ONCE = 2048  # The vocabulary of a published model may be large.
MAX_SOURCE_BYTES = 256 * 2**20  # A larger training file is not compared with the rows.
JSON_FIELDS = ("rows", "metrics", "intervals", "baselines", "gains")
# Slices are of the most frequent values of a column; the other values are one slice.
MAX_VALUES = 20
MISSING = "missing"
OTHERS = "others"


class RunEvaluation(NamedTuple):
    """The result for a model: its step, what the data is, and the results by column and value."""

    description: str
    step: int
    result: SplitResult
    task: Task
    main_metric: str = ""  # It is compared with baselines by this; empty for a language model.
    slices: Slices = {}

    def as_json(self) -> dict[str, object]:
        values = {"step": self.step, **_fields(self.result)}
        if self.slices:
            slices: dict[str, dict[str, object]] = {}
            for column, results in self.slices.items():
                slices[column] = {value: _fields(result) for value, result in results.items()}
            values["slices"] = slices
        return values

    def as_text(self, data: str) -> str:
        """Tables of the metrics, of the baselines on the same rows, and of the slices; `data` is a name, or ""."""
        task = self.task
        shown = records.Data(task=task.kind, num_classes=task.num_classes)
        if task.kind == "classification" and task.num_classes == 2:
            shown.positive_class = class_names(task)[task.positive_class]
        record = RunRecord(
            id="",
            name=data,
            status="finished",
            attempts=[],
            data=shown,
            evaluation=records.Evaluation(self.main_metric, [self.result]),
            is_evaluated=True,
        )
        return evaluation_lines(record, self.slices)


def _fields(result: SplitResult) -> dict[str, object]:
    return {name: getattr(result, name) for name in JSON_FIELDS}


class EvalData(NamedTuple):
    """Data to evaluate on.

    Args:
        baselines: computes the baselines on them.
        read: columns of labelled rows by their positions.
    """

    batches: Iterable[Batch]
    description: str
    baselines: Callable[[], Sequence[Baseline]] = list
    read: Callable[[Sequence[str], np.ndarray], Table] | None = None


def evaluate_restored(
    restored: RestoredModel,
    run: Path,
    overrides: dict[str, str],
    *,
    pretrained: str | None = None,
    max_batches: int | None = None,
    slices: Sequence[str] = (),
    trusted: bool = False,
) -> RunEvaluation:
    """Evaluates the model of a run, or a published one in its place.

    Args:
        overrides: keys of the data node, as text.
        slices: columns by whose values the main metric is judged too.
        trusted: data may be read from an address that the run names.
    """
    if not trusted:
        typed = [f"data.{key}" for key in overrides]
        refuse_addresses({"data": restored.config["data"]}, {}, str(run), typed)
    step = restored.checkpoint.step
    if pretrained is not None:
        restored = with_pretrained(restored, pretrained)
        step = 0
    with activity("reading the data"):
        data = choose_data(restored, overrides, run, slices)

    task = restored.encoder.task
    thresholds = restored.thresholds if "source" in overrides else ()
    evaluation = evaluate(
        restored.model, data.batches, task, limit=max_batches, thresholds=thresholds
    )
    assert evaluation is not None
    if not len(evaluation.ids):
        result = SplitResult("valid", 0, {**evaluation.metrics})
        return RunEvaluation(data.description, step, result, task)
    main = main_metric(task, str(restored.config["objective"]))
    chosen = as_thresholds(thresholds)
    outputs = {each.name: each.valid[evaluation.positions] for each in data.baselines()}
    result = compare_with_baselines(task, main, "valid", evaluation, outputs, {MODEL: chosen})
    add_predictions(result, task, evaluation, chosen)
    by_value: dict[str, dict[str, SplitResult]] = {}
    if slices and data.read is not None:
        for column, cells in data.read(slices, evaluation.positions).items():
            by_value[column] = {
                value: compare_with_baselines(task, main, "valid", rows, {}, {MODEL: chosen})
                for value, rows in slice_rows(evaluation, cells)
            }
    return RunEvaluation(data.description, step, result, task, main, by_value)


def slice_rows(
    evaluation: Evaluation, cells: Sequence[str | None]
) -> Iterator[tuple[str, Evaluation]]:
    """The rows of an evaluation by the values of a column, the most frequent one first."""
    values = np.array([MISSING if cell is None else cell for cell in cells], object)
    counts = Counter(values.tolist())
    frequent = [value for value, _ in counts.most_common(MAX_VALUES)]
    values[~np.isin(values, frequent)] = OTHERS
    for value in dict.fromkeys([*frequent, *values]):
        chosen = values == value
        arrays = [array[chosen] for array in evaluation[1:]]
        yield value, Evaluation({}, *arrays)  # The loss of some rows is not known.


def evaluate_published(
    path: Path, defaults: Config, overrides: dict[str, str], max_batches: int | None
) -> RunEvaluation:
    """Evaluates a language model as it was published on the text of `data.source`.

    Args:
        defaults: the data node that the overrides change.
    """
    refuse_without_effect(overrides, TEXT_KEYS)
    node = override_node(defaults, overrides)
    forget_source(node, overrides)
    seq_len = node["seq_len"] if "seq_len" in overrides else None
    model, encoder = load_published(path, seq_len)
    node["seq_len"] = encoder.seq_len
    if "eval_batch_size" not in overrides:
        node["eval_batch_size"] = max(1, TOKENS_AT_ONCE // encoder.seq_len)
    batches, description = text_batches(encoder, node)
    evaluation = evaluate(model, batches, encoder.task, limit=max_batches)
    assert evaluation is not None
    description = f"{description} in rows of {encoder.seq_len} tokens"
    result = SplitResult("valid", 0, {**evaluation.metrics})
    return RunEvaluation(description, 0, result, encoder.task)


def choose_data(
    restored: RestoredModel, overrides: dict[str, str], folder: Path, slices: Sequence[str]
) -> EvalData:
    """The data to evaluate on: that of the run, or the source of the overrides."""
    node = override_data(restored, overrides)
    encoder = restored.encoder
    has_rows = isinstance(encoder, RowEncoder)
    has_conversations = isinstance(encoder, TextEncoder) and "loss_on" in node
    if slices and not has_rows:
        raise ConfigError("slices: expected a model of labelled rows")
    if has_conversations:
        refuse_without_effect(overrides, CONVERSATION_KEYS)
    elif isinstance(encoder, TextEncoder):
        refuse_without_effect(overrides, TEXT_KEYS)
    elif has_rows:
        refuse_without_effect(overrides, ROW_KEYS if "source" in overrides else NO_EFFECT)

    if has_conversations and "source" in overrides:
        node["valid_source"] = node["source"]
    if "source" not in overrides or has_conversations:
        return _data_of_run(restored, node, overrides, folder, slices)
    forget_source(node, overrides)
    if isinstance(encoder, TextEncoder):
        return EvalData(*text_batches(encoder, node))
    if not has_rows:
        only = f"{node['_target_']} is evaluated on its validation data only"
        raise ConfigError(f"data.source={node['source']}: {only}")
    rows = open_eval_rows(restored, node, project_root() / ".cache", slices)
    data = _training_data(restored, folder)
    rows.warn_of_training_rows(data)
    return EvalData(rows.batches(), rows.description, partial(rows.baselines, data), rows.table)


def _data_of_run(
    restored: RestoredModel,
    node: Config,
    overrides: dict[str, str],
    folder: Path,
    slices: Sequence[str],
) -> EvalData:
    own = restored.config_dir
    data = build_data(restored.config | {"data": node}, project_root(), own, folder, restored=own)
    is_same = restored.checkpoint.state["metadata"]["data"] == data.fingerprint
    is_changed = not (overrides.keys() - NO_EFFECT or is_same)
    if data.task != restored.encoder.task or is_changed:
        way = "data.source=FILE evaluates with the encoder of the run"
        fault = f"the data of this run changed since it was trained; {way}"
        raise DataError(f"{own.parent}: {fault}")
    known = data.columns if isinstance(data, LabelledRows) else []
    for name in slices:
        if name not in known:
            expected = f"expected a column of the model ({', '.join(known)}), or data.source=FILE"
            raise ConfigError(f"slices={name}: {expected}")
    description = "the validation data of the run"
    if "source" in overrides:
        description = f"conversations of {node['source']}"
    baselines = partial(predict_baselines, data)
    return EvalData(data.valid, description, baselines, partial(_valid_cells, data))


def _valid_cells(data: DataModule, columns: Sequence[str], positions: np.ndarray) -> Table:
    """These columns of validation rows."""
    assert isinstance(data, LabelledRows)
    table = data.cells(data.split_sizes[0] + positions)
    return {name: table[name] for name in columns}


def _training_data(restored: RestoredModel, folder: Path) -> DataModule | None:
    """The data that the model was trained on; None if it cannot be read, has changed, or is too large to compare."""
    own = restored.config_dir
    file = str(restored.config["data"].get("source") or "")
    if os.path.isdir(file) or (os.path.isfile(file) and os.path.getsize(file) > MAX_SOURCE_BYTES):
        return None
    with suppress(UserError):  # moved, or malformed
        data = build_data(restored.config, project_root(), own, folder, restored=own)
        if data.fingerprint == restored.checkpoint.state["metadata"]["data"]:
            return data
    return None

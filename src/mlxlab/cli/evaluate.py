"""Evaluates a trained model, on the validation data of its run or on other data.

    mlxlab evaluate run=RUN_FOLDER [checkpoint=best] [max_batches=N] [trust_folder=true]
    mlxlab evaluate run=RUN_FOLDER data.source=FILE [data.KEY=VALUE ...]
    mlxlab evaluate run=RUN_FOLDER pretrained=FILE_OR_FOLDER [data.KEY=VALUE ...]
    mlxlab evaluate run=GGUF_FILE_OR_FOLDER data.source=FILE [data.KEY=VALUE ...]

run          the folder of a run; or a language model as it was published, a GGUF file or a folder of Hugging Face's:
             its loss on a text, in rows of data.seq_len tokens (1,024)
pretrained   a language model as it was published, evaluated in place of the run's on the same data: the baseline of a
             run that began with it. It must have the tokenizer of the run
data.source  text as data=streaming takes it, all of it; conversations as data=instruct does; for a model of labelled
             rows a file with its columns and labels, or `test`: the 418 test rows of the Titanic
slices       columns by whose values the main metric is shown too, such as slices=[Sex]
data.KEY     another key of the run's data: text_column, seq_len, reading.split, max_valid_examples

source= and input= are short for data.source=, on_error= for data.on_error= and max_left_out= for data.max_left_out=.

Data is read with the tokenizer and the labels of the run. For a model of labelled rows it prints the metrics with
95 % intervals, and those of the baselines of the run on the same rows; on other rows than those of the run they are
fitted again, where its training data can be read. Where several labels may hold, each does from the threshold on with
which `predict` answers; on the validation data, which chose it, from probability 0.5 on.
"""

import logging
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mlxlab import terminal
from mlxlab.cli.app import Subcommand, build_main
from mlxlab.cli.args import parse_value
from mlxlab.cli.print_json import print_json
from mlxlab.config.admission import refuse_addresses
from mlxlab.config.issues import format_issues
from mlxlab.config.paths import conf_dir, project_root
from mlxlab.config.schema.signature import signature
from mlxlab.config.schema.validate import Validator
from mlxlab.constraints import Size
from mlxlab.errors import ConfigError, DataError, UserError
from mlxlab.nearest import suggestion
from mlxlab.progress import activity
from mlxlab.terminal.messages import announce

if TYPE_CHECKING:
    import numpy as np

    from mlxlab.baselines.baseline import Baseline
    from mlxlab.data.batch import Batch
    from mlxlab.data.dataset import DataModule, Table
    from mlxlab.experiment.build import Config
    from mlxlab.experiment.final_evaluation.evaluate import FinalEvaluation
    from mlxlab.experiment.final_evaluation.slices import Slice
    from mlxlab.inference.restore import RestoredModel
    from mlxlab.training.evaluate import Evaluation

    ReadCells = Callable[[Sequence[str], np.ndarray], Table]

# The keys of the data that an evaluation reads; all others are those that the model was trained with.
NO_EFFECT = frozenset({"eval_batch_size"})  # on what is evaluated
ROW_KEYS = NO_EFFECT | {"source", "reading", "on_error", "max_left_out"}
TEXT_KEYS = ROW_KEYS | {"text_column", "seq_len", "packing", "shuffle", "max_valid_examples"}
CONVERSATION_KEYS = {
    "source",
    "eval_batch_size",
    "on_error",
    "seq_len",
    "layout",
    "loss_on",
    "truncation",
}
CONVERSATION_KEYS |= {"max_valid_examples"}
NOT_OF_OTHER_SOURCES = (
    "reading.split",
    "reading.config",
    "reading.revision",
    "max_valid_examples",
)
TEXT_DEFAULTS = ("model=transformer", "data=streaming")  # the keys of a text, for no run
TOKENS_AT_ONCE = 2048  # of a published model, whose vocabulary may be large
ONLY_ROWS = "slices: expected a model of labelled rows"
MAX_SOURCE_BYTES = 256 * 2**20  # of a training file that is compared with the rows to evaluate on

log = logging.getLogger(__name__)


def _no_cells(columns: Sequence[str], positions: "np.ndarray") -> "Table":
    return {}


class EvalData(NamedTuple):
    """Data to evaluate on.

    Args:
        baselines: computes the baselines on them.
        read: columns of labelled rows by their positions.
    """

    batches: "Iterable[Batch]"
    description: str
    baselines: "Callable[[], Sequence[Baseline]]" = list
    read: "ReadCells" = _no_cells


def _evaluate(
    run: Path,
    checkpoint: str = "best",
    pretrained: str | None = None,
    max_batches: Size | None = None,
    slices: list[str] | None = None,
    trust_folder: bool = False,
    json: bool = False,
    *,
    args: list[str],
) -> None:
    """Prints the metrics.

    Args:
        run: a run folder, or a language model as it was published: a GGUF file, or a folder with config.json.
        checkpoint: best, last, emergency, step-N, or the path of a checkpoint.
        pretrained: folder, GGUF file or hub id of a language model to evaluate in place of that of the run.
        max_batches: batches at most; null takes all.
        slices: columns of labelled rows, by whose values the main metric is shown too.
        trust_folder: reads data from an address that the run names; for folders of your own.
        json: prints JSON instead of a table: metrics, intervals, baselines, and their gains, which are intervals of how
            much better the model is.
    """
    from mlxlab.inference.pretrained_baseline import is_published

    overrides = read_overrides(args)
    if is_published(run):
        if pretrained is not None:
            raise ConfigError(f"pretrained={pretrained}: expected the folder of a run, got {run}")
        _evaluate_published(run, overrides, max_batches, json, slices)
        return
    loading = announce(f"loading {pretrained or run}")
    from mlxlab import backend

    backend.prepare()
    from mlxlab.experiment.final_evaluation.slices import slices_table
    from mlxlab.experiment.report import describe_evaluation, judge_evaluation, value_table
    from mlxlab.inference.restore import restore_model
    from mlxlab.ops.native.activation import activate_for_inference
    from mlxlab.training.evaluate import evaluate

    activate_for_inference()
    with loading:
        restored = restore_model(run, checkpoint)
        if not trust_folder:
            typed = [f"data.{key}" for key in overrides]
            refuse_addresses({"data": restored.config["data"]}, {}, str(run), typed)
        if pretrained is not None:
            from mlxlab.inference.pretrained_baseline import with_pretrained

            restored = with_pretrained(restored, pretrained)
    with activity("reading the data"):
        batches, description, baselines, read = _eval_data(restored, overrides, run, slices or ())
    first, *others = description.split("\n")
    for line in (f"{first}; {pretrained or f'step {restored.checkpoint.step} of {run}'}", *others):
        log.info(line)
    thresholds = restored.thresholds if "source" in overrides else ()
    result = evaluate(
        restored.model, batches, restored.encoder.task, limit=max_batches, thresholds=thresholds
    )
    assert result is not None
    results, step = None, 0 if pretrained else restored.checkpoint.step
    if len(result.ids):
        task, objective = restored.encoder.task, str(restored.config["objective"])
        results = judge_evaluation(task, objective, step, result, baselines(), thresholds)
    sliced = _judge_slices(results, read, slices or [])
    if json:
        print_json(_as_json(step, result, results, sliced))
    elif results is not None:
        terminal.show(describe_evaluation(results, Path(overrides.get("source", "")).name))
        if sliced:
            terminal.show(slices_table(results.main_metric, sliced))
    else:
        terminal.show(value_table("metric", result.metrics.items()))


def _judge_slices(
    results: "FinalEvaluation | None", read: "ReadCells", columns: Sequence[str]
) -> "list[Slice]":
    from mlxlab.experiment.final_evaluation.slices import judge_slices

    if results is None or not columns:
        return []
    evaluation = results.splits[0].evaluation
    table = read(columns, evaluation.positions)
    main = results.main_metric
    return judge_slices(results.task, main, evaluation, table, results.thresholds)


def _as_json(
    step: int,
    evaluation: "Evaluation",
    results: "FinalEvaluation | None",
    sliced: "list[Slice]",
) -> dict[str, object]:
    from mlxlab.experiment.final_evaluation.slices import slices_json

    if results is None:
        return {
            "step": step,
            "metrics": evaluation.metrics,
            "intervals": {},
            "baselines": {},
            "gains": {},
        }
    [split] = results.splits
    names = ("metrics", "intervals", "baselines", "gains")
    return {
        "step": step,
        "rows": len(evaluation.ids),
        **{name: getattr(split, name) for name in names},
        **({"slices": slices_json(sliced)} if sliced else {}),
    }


def _evaluate_published(
    path: Path,
    overrides: dict[str, str],
    max_batches: int | None,
    json: bool,
    slices: Sequence[str] | None,
) -> None:
    """Prints the metrics of a language model as it was published on the text of `data.source`."""
    if slices:
        raise ConfigError(ONLY_ROWS)
    if "source" not in overrides:
        raise ConfigError(f"run={path}: expected data.source=FILE, the text to evaluate on")
    refuse_without_effect(overrides, TEXT_KEYS)
    loading = announce(f"loading {path}")
    from mlxlab import backend

    backend.prepare()
    from mlxlab.config.hydra.compose import Composer
    from mlxlab.experiment.report import value_table
    from mlxlab.inference.eval_data import text_batches
    from mlxlab.inference.pretrained_baseline import load_published
    from mlxlab.ops.native.activation import activate_for_inference
    from mlxlab.training.evaluate import evaluate

    activate_for_inference()
    with loading:
        defaults = Composer(conf_dir(), [*TEXT_DEFAULTS]).checked_values(resolve=True)["data"]
        node = override_node(defaults, overrides)
        forget_source(node, overrides)
        seq_len = node["seq_len"] if "seq_len" in overrides else None
        model, encoder = load_published(path, seq_len)
        node["seq_len"] = encoder.seq_len
        if "eval_batch_size" not in overrides:
            node["eval_batch_size"] = max(1, TOKENS_AT_ONCE // encoder.seq_len)
        batches, description = text_batches(encoder, node)
    log.info("%s in rows of %s tokens; %s", description, encoder.seq_len, path)
    result = evaluate(model, batches, encoder.task, limit=max_batches)
    assert result is not None
    if json:
        print_json(_as_json(0, result, None, []))
    else:
        terminal.show(value_table("metric", result.metrics.items()))


def read_overrides(args: list[str]) -> dict[str, str]:
    """`data.KEY=VALUE` arguments as key -> text."""
    overrides: dict[str, str] = {}
    for arg in args:
        name, _, text = arg.removeprefix("data.").partition("=")
        if not text or name in overrides:
            raise ConfigError(
                f"{arg}: data.{name} is given twice" if text else f"{arg}: expected a value"
            )
        overrides[name] = text
    return overrides


def _eval_data(
    restored: "RestoredModel", overrides: dict[str, str], folder: Path, slices: Sequence[str]
) -> "EvalData":
    """The data to evaluate on.

    Args:
        slices: columns that are read too, besides those of the model.
    """
    from mlxlab.baselines.predict import predict_baselines
    from mlxlab.data.dataset import RowEncoder
    from mlxlab.data.text.encoder import TextEncoder
    from mlxlab.experiment.build import build_data
    from mlxlab.inference.eval_data import (
        open_eval_rows,
        report_known_rows,
        row_baselines,
        row_batches,
        text_batches,
    )

    node, encoder = override_data(restored, overrides), restored.encoder
    is_text, has_rows = isinstance(encoder, TextEncoder), isinstance(encoder, RowEncoder)
    if slices and not has_rows:
        raise ConfigError(ONLY_ROWS)
    has_conversations = is_text and "loss_on" in node
    if is_text:
        refuse_without_effect(overrides, CONVERSATION_KEYS if has_conversations else TEXT_KEYS)
    elif has_rows:
        refuse_without_effect(overrides, ROW_KEYS if "source" in overrides else NO_EFFECT)
    if has_conversations and "source" in overrides:
        node["valid_source"] = node["source"]
    if "source" not in overrides or has_conversations:
        config, own = restored.config | {"data": node}, restored.config_dir
        run_data = build_data(config, project_root(), own, folder, restored=own)
        _refuse_changed(run_data, restored, overrides)
        if slices:
            _refuse_unread(run_data, slices)
        other = f"conversations of {node['source']}" if "source" in overrides else ""
        baselines = partial(predict_baselines, run_data)
        description = other or "the validation data of the run"
        return EvalData(run_data.valid, description, baselines, partial(_valid_cells, run_data))
    forget_source(node, overrides)
    if has_rows:
        rows, data = (
            open_eval_rows(restored, node, project_root() / ".cache", slices),
            _training_data(restored, folder),
        )
        batches, description, numbers = row_batches(restored, rows, node)
        report_known_rows(restored, rows, numbers, node["source"], data)
        baselines = partial(row_baselines, restored, rows, numbers, data)

        def read(columns: Sequence[str], positions: "np.ndarray") -> "Table":
            return rows.table(columns, numbers[positions])

        return EvalData(batches, description, baselines, read)
    if not isinstance(encoder, TextEncoder):
        raise ConfigError(
            f"data.source={node['source']}: {node['_target_']} is evaluated on its validation data only"
        )
    return EvalData(*text_batches(encoder, node))


def _refuse_unread(data: "DataModule", columns: Sequence[str]) -> None:
    """ConfigError for columns of validation rows that the model does not read."""
    from mlxlab.data.dataset import LabelledRows

    known = data.columns if isinstance(data, LabelledRows) else []
    unread = [name for name in columns if name not in known]
    if unread:
        expected = f"expected a column of the model ({', '.join(known)}), or data.source=FILE"
        raise ConfigError(f"slices={unread[0]}: {expected}")


def _valid_cells(data: "DataModule", columns: Sequence[str], positions: "np.ndarray") -> "Table":
    """These columns of validation rows."""
    from mlxlab.data.dataset import LabelledRows

    assert isinstance(data, LabelledRows)
    table = data.cells(data.split_sizes[0] + positions)
    return {name: table[name] for name in columns}


def _training_data(restored: "RestoredModel", folder: Path) -> "DataModule | None":
    """The data that the model was trained on; None if it cannot be read, has changed, or is too large to compare."""
    from mlxlab.experiment.build import build_data

    own, file = restored.config_dir, str(restored.config["data"].get("source") or "")
    if os.path.isdir(file) or (os.path.isfile(file) and os.path.getsize(file) > MAX_SOURCE_BYTES):
        return None
    with suppress(UserError):  # moved, or malformed
        data = build_data(restored.config, project_root(), own, folder, restored=own)
        if data.fingerprint == restored.checkpoint.state["metadata"]["data"]:
            return data
    return None


def _refuse_changed(
    data: "DataModule", restored: "RestoredModel", overrides: dict[str, str]
) -> None:
    """DataError if the labels, or without other keys anything else of the data, are not those of the run."""
    same_content = restored.checkpoint.state["metadata"]["data"] == data.fingerprint
    if data.task != restored.encoder.task or not (overrides.keys() - NO_EFFECT or same_content):
        way = "data.source=FILE evaluates with the encoder of the run"
        raise DataError(
            f"{restored.config_dir.parent}: the data of this run changed since it was trained; {way}"
        )


def override_data(restored: "RestoredModel", overrides: dict[str, str]) -> "Config":
    """The data node of the run with the overrides; every key is checked."""
    if (path := overrides.pop("tokenizer.path", None)) is not None:
        from mlxlab.data.tokenizers.fit import existing_tokenizer

        existing_tokenizer(path, restored.config_dir)  # refuses another one than that of the run
    return override_node(restored.config["data"], overrides)


def override_node(data: "Config", overrides: dict[str, str]) -> "Config":
    """A data node with the overrides; every key is checked."""
    node = deepcopy(data)
    for name, text in overrides.items():
        _set(node, name, text)
    if issues := list(Validator().node(node, node["_target_"], "data")):
        raise ConfigError(format_issues(issues))
    return node


def refuse_without_effect(overrides: dict[str, str], effective: Collection[str]) -> None:
    """ConfigError for a key of the data, valid in training, that is not one of these."""
    for name, text in overrides.items():
        if name.partition(".")[0] not in effective:
            near = suggestion(name, effective, "data.")
            raise ConfigError(
                f"data.{name}={text}: has no effect here; the value of the run is used{near}"
            )


def forget_source(node: "Config", overrides: dict[str, str]) -> None:
    """Removes the keys that belong to the source of the run, for another one."""
    for key in NOT_OF_OTHER_SOURCES:
        if key not in overrides and key.partition(".")[0] in node:
            _set(node, key, None)


def _set(node: "Config", key: str, text: str | None) -> None:
    """Sets a dotted key, as the type that the signature of its node has."""
    first, _, inner = key.partition(".")
    if inner and isinstance(
        node.setdefault(first, {}), dict
    ):  # an unknown key is refused with its path
        _set(node[first], inner, text)
        return
    known = signature(node["_target_"]) if "_target_" in node else None
    node[key] = (
        parse_value(known.keys[key].hint, text)
        if known and key in known.keys and text is not None
        else text
    )


ALIASES = {name: f"data.{name}" for name in ("source", "on_error", "max_left_out")} | {
    "input": "data.source"
}
main = build_main(__doc__, Subcommand(_evaluate, forward_prefix="data.", aliases=ALIASES))

"""Exports trained models: folders that are read like those of a run, with one checkpoint and no optimizer."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import yaml

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.checkpoint.names import FOLDER
from mlxlab.checkpoint.store import CheckpointStore
from mlxlab.data.chat.chat_template import ChatTokenizer, load_template
from mlxlab.errors import ConfigError, WriteError
from mlxlab.files.atomic import new_folder, refuse_existing, write_atomic
from mlxlab.inference.restore import ENSEMBLE_FILE, RestoredModel, restore_model, stored_config_dir
from mlxlab.inference.text_generator import restored_generator
from mlxlab.models.interop.counterpart import TrainedModel
from mlxlab.models.interop.model_card import Origin, read_base_model
from mlxlab.models.model import CausalHead
from mlxlab.record.run_record import Continuation, RunRecord
from mlxlab.schema.metric_names import VALID
from mlxlab.tracking.mlflow.download import is_mlflow_uri
from mlxlab.views.commands import continuing_lines
from mlxlab.views.run_tables import metrics_table
from mlxlab.views.run_view import RunView
from mlxlab.views.tables import Column, Table, numeric


def restore_single(run: Path, checkpoint: str) -> RestoredModel:
    """The model to export; raises as `restore_model`, and ConfigError for an ensemble."""
    if (run / ENSEMBLE_FILE).is_file():
        raise ConfigError(f"run={run}: expected one model, got an ensemble; export its members")
    return restore_model(run, checkpoint)


def check_output(run: Path, out: Path) -> None:
    """Refuses a folder without a run, then an `out` that exists or lies in a folder of the run.

    Raises:
        InputNotFoundError: there is no run. CannotCreateError: `out` exists. ConfigError: it lies in the run.
    """
    if not (is_mlflow_uri(str(run)) or (run / ENSEMBLE_FILE).is_file()):
        stored_config_dir(run)
    refuse_existing(out)
    folder = out.parent.resolve()
    if folder != run.resolve() and folder.is_relative_to(run.resolve()):
        raise ConfigError(
            f"out={out}: lies in {out.parent}, a folder of the run; expected {run / out.name}"
        )


def merge_adapters(run: Path, out: Path, checkpoint: str = "best") -> RestoredModel:
    """Writes the model of a run with its adapters folded in, in full precision; returns it as it is in the run.

    Raises:
        ConfigError: it has no adapters, or `out` lies in a folder of the run. CannotCreateError: `out` exists.
        WriteError: it cannot be written.
        InputNotFoundError, CheckpointUnavailableError, DataError, NotAllowedError: see `restore_model`.
    """
    from mlxlab.models.adapters.lora import merged_node, merged_parameters

    check_output(run, out)
    restored = restore_single(run, checkpoint)
    node = restored.checkpoint.state["architecture"]
    if not node.get("adapter"):
        raise ConfigError(f"run={run}: its model has no adapters to merge")
    write_export(out, restored, merged_parameters(restored.model), merged_node(node))
    return restored


def write_export(
    out: Path,
    restored: RestoredModel,
    weights: Arrays,
    node: dict[str, Any],
    files: Mapping[str, str] | None = None,
) -> None:
    """Writes a folder with the `inference` files of a run and a checkpoint of these weights, as a whole or not at all.

    Args:
        out: the folder; it must not exist.
        node: the `model` node of the weights.
        files: further files, text by name.

    Raises:
        CannotCreateError: `out` exists. WriteError: it cannot be written.
    """
    config = {**restored.config, "model": node}
    saved = restored.checkpoint.state
    metadata = {
        **saved["metadata"],
        "config": config,
        "uid": "",
    }
    try:
        with new_folder(out) as folder:
            shutil.copytree(restored.config_dir, folder / "inference")
            write_atomic(
                folder / "inference" / "config.yaml", yaml.safe_dump(config, sort_keys=False)
            )
            for name, text in (files or {}).items():
                write_atomic(folder / name, text)
            state: Any = {**saved, "architecture": node, "metadata": metadata}
            mx.eval(weights)
            step = restored.checkpoint.step
            CheckpointStore(folder / FOLDER).save(step, weights, {}, state, best_step=step)
    except (OSError, RuntimeError) as error:  # MLX has no exception of its own for a full disk
        raise WriteError(
            f"out={out}: {getattr(error, 'strerror', None) or str(error).splitlines()[0]}"
        ) from None


def trained_model(restored: RestoredModel) -> TrainedModel:
    """The model of a restored run, with its tokenizer and template."""
    encoder = restored.encoder
    causal = isinstance(restored.model.head, CausalHead)
    template = load_template(restored.config_dir, encoder.tokenizer) if causal else None
    eos = encoder.tokenizer.eos_id
    ends = () if eos is None else (eos,)
    return TrainedModel(
        restored.model,
        restored.checkpoint.state["architecture"],
        encoder.tokenizer,
        encoder.task,
        seq_len=getattr(encoder, "seq_len", None),
        start=restored_generator(restored).start if causal else (),
        template=template,
        end_ids=ends
        if template is None
        else tuple(sorted(ChatTokenizer(template, encoder.tokenizer).end_ids)),
        thresholds=restored.thresholds,
    )


def origin_of(restored: RestoredModel, run: Path, record: RunRecord | None) -> Origin:
    """What the model card says of the run: also what only the checkpoint knows, where there is no record.

    A command that continued the run after the checkpoint made nothing of what is exported.
    """
    checkpoint = restored.checkpoint
    state = checkpoint.state
    metadata = state["metadata"]
    commit = ""
    commands = [("", metadata["overrides"])]
    metrics = Table([Column("metric"), *numeric("value")])
    for key, value in sorted(state["history"].at(checkpoint.step).items()):
        if key.startswith(VALID):
            metrics.add([key, f"{value:.6g}"])
    if record is not None:
        commit = record.code.commit
        if record.command.first:
            later = continuing_lines(
                [Continuation(**each) for each in metadata.get("continued", [])]
            )
            commands = [("", record.command.first)]
            commands += [(f"continued {place}".rstrip(), typed) for place, typed in later]
        if record.is_evaluated and checkpoint.step == record.training.best_step:
            metrics = metrics_table(RunView(record, run))
    hashes = {
        "commit": commit,
        "config": metadata["config_hash"],
        "data": metadata["data"],
        "validation data": metadata["held_out"],
        "tokenizer": metadata["tokenizer"],
        **{
            f"initial weights {source}": digest
            for source, digest in metadata["initial_weights"].items()
        },
        **{f"teacher {teacher}": digest for teacher, digest in metadata["teachers"].items()},
    }
    choices = metadata["choices"]
    node = restored.config["data"]
    data = choices.get("experiment") or choices.get("data") or str(node["_target_"])
    if sources := list(node.get("mixture") or ()) or node.get("source"):
        data = f"{', '.join([sources] if isinstance(sources, str) else map(str, sources))} ({data})"
    started_from = [restored.config["model"].get(key) for key in ("pretrained", "init_from")]
    bases = tuple(read_base_model(source) for source in started_from if source)
    name = run.absolute().name
    return Origin(name, data, checkpoint.step, commands, hashes, metrics, bases)

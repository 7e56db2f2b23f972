"""The model of a run with what other programs need of it."""

from pathlib import Path

from mlxlab.data.chat.chat_template import ChatTokenizer, load_template
from mlxlab.inference.restore import RestoredModel
from mlxlab.inference.text_generator import restored_generator
from mlxlab.models.interop.counterpart import TrainedModel
from mlxlab.models.interop.model_card import Origin, read_base_model
from mlxlab.models.model import CausalHead
from mlxlab.record.run_record import Continuation, RunRecord
from mlxlab.schema.metric_names import VALID
from mlxlab.views.commands import continuing_lines
from mlxlab.views.run_tables import metrics_table
from mlxlab.views.run_view import RunView
from mlxlab.views.tables import Column, Table, numeric


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

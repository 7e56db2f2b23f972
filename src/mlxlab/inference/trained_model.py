"""The model of a run with what other programs need of it."""

from collections.abc import Sequence

from mlxlab.data.chat.chat_template import load_template
from mlxlab.data.chat.chat_tokenizer import ChatTokenizer
from mlxlab.inference.restore import RestoredModel
from mlxlab.inference.text_generator import restored_generator
from mlxlab.interop.base_model import read_base_model
from mlxlab.interop.model_card import Command, Origin
from mlxlab.interop.trained_model import TrainedModel
from mlxlab.models.model import CausalHead


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


def origin_of(
    restored: RestoredModel, name: str, commit: str = "", commands: Sequence[Command] = ()
) -> Origin:
    """What the model card says of the run; its commands are those of the checkpoint where they are not known."""
    checkpoint = restored.checkpoint
    state = checkpoint.state
    metadata = checkpoint.state["metadata"]
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
    history = state["history"]
    logged = dict(history.curve).get(checkpoint.step, {})
    metrics = history.best_metrics if checkpoint.step == history.best_step else logged
    metrics = {key: value for key, value in metrics.items() if key.startswith(("valid/", "test/"))}
    choices = metadata["choices"]
    node = restored.config["data"]
    data = choices.get("experiment") or choices.get("data") or str(node["_target_"])
    if sources := list(node.get("mixture") or ()) or node.get("source"):
        data = f"{', '.join([sources] if isinstance(sources, str) else map(str, sources))} ({data})"
    started_from = [restored.config["model"].get(key) for key in ("pretrained", "init_from")]
    bases = tuple(read_base_model(source) for source in started_from if source)
    commands = commands or [("", metadata["overrides"])]
    return Origin(name, data, checkpoint.step, commands, hashes, metrics, bases)

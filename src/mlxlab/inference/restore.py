"""A trained model back from its files: a checkpoint, and what the run wrote into `restore/` beside it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mlxlab.checkpoint.resume import load_path
from mlxlab.checkpoint.store import Checkpoint
from mlxlab.config.instantiate import build
from mlxlab.config.upgrade import completed
from mlxlab.data.text import encoder as text_encoder
from mlxlab.data.text.encoder import TextEncoder
from mlxlab.data.titanic import encoder as titanic_encoder
from mlxlab.data.titanic.encoder import RowEncoder
from mlxlab.errors import DataFault, InputMissing
from mlxlab.inference.ensemble import FILE as ENSEMBLE
from mlxlab.inference.ensemble import restore_ensemble
from mlxlab.models.heads import head_for
from mlxlab.models.model import PROJECTIONS, Model


@dataclass(frozen=True)
class Restored:
    """A model in evaluation mode, the encoder of its inputs, and the config it was trained with.

    The encoder is a `TextEncoder` of a language model, a `RowEncoder` of a classifier; each has `task` and `tokenizer`.
    """

    model: Model
    encoder: RowEncoder | TextEncoder
    config: dict[str, Any]
    checkpoint: Checkpoint
    facts: Path  # the `restore` folder: config.yaml, tokenizer.json, data.json


def restore(folder: Path, checkpoint: Path | None = None) -> Restored:
    """Restores the best model of a run.

    Args:
        folder: the run folder, or its `restore` alone; or that of an ensemble.
        checkpoint: None takes the best one of the run folder.

    Raises:
        InputMissing: the folder holds no run. NoCheckpoint: no checkpoint is usable. DataFault: a file is damaged.
    """
    if (folder / ENSEMBLE).is_file():
        return restore_ensemble(folder, restore)
    facts = folder / "restore" if (folder / "restore").is_dir() else folder
    if not (facts / "config.yaml").is_file():
        raise InputMissing(f"{folder}: no run folder (restore/config.yaml is not there)")
    config = completed(yaml.safe_load((facts / "config.yaml").read_text()))
    encoder = restore_encoder(facts)
    # Weights of others were only where training began; of their folder the run keeps the shape.
    node = config["model"] | ({"pretrained": str(facts)} if config["model"]["pretrained"] else {})
    trunk = build(node, vocab_size=encoder.tokenizer.vocab_size, weights=False)
    task = encoder.task
    model = Model(
        trunk, head_for(trunk, kind=task.kind, num_classes=task.num_classes, dropout=config["model"]["dropout"])
    )
    found = load_path(checkpoint or folder / "checkpoints" / "best")
    model.load_weights([(name, leaf) for name, leaf in found.weights.items() if not name.startswith(f"{PROJECTIONS}.")])
    model.eval()
    return Restored(model, encoder, config, found, facts)


def restore_encoder(facts: Path) -> RowEncoder | TextEncoder:
    """What turns inputs into batches, by the format that data.json names."""
    path = facts / "data.json"
    try:
        kind = str(json.loads(path.read_text(encoding="utf-8"))["format"])
    except OSError as error:
        raise InputMissing(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataFault(f"{path}:1:1: is damaged ({type(error).__name__}: {str(error)[:100]})") from None
    return text_encoder.restore(facts) if kind == text_encoder.FORMAT else titanic_encoder.restore(facts)

"""A trained model back from its files: a checkpoint, and what the run wrote into `restore/` beside it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mlxlab.checkpoint.transfer import load_path
from mlxlab.config import build
from mlxlab.data import row_encoder
from mlxlab.errors import InputMissing
from mlxlab.models.heads import head_for
from mlxlab.models.model import Model


@dataclass(frozen=True)
class Restored:
    """A model in evaluation mode, the encoder of its inputs, and the config it was trained with."""

    model: Model
    encoder: row_encoder.RowEncoder
    config: dict[str, Any]


def restore(folder: Path, checkpoint: Path | None = None) -> Restored:
    """Restores the best model of a run.

    Args:
        folder: the run folder, or its `restore` alone.
        checkpoint: None takes the best one of the run folder.

    Raises:
        InputMissing: the folder holds no run. NoCheckpoint: no checkpoint is usable. DataFault: a file is damaged.
    """
    facts = folder / "restore" if (folder / "restore").is_dir() else folder
    if not (facts / "config.yaml").is_file():
        raise InputMissing(f"{folder}: no run folder (restore/config.yaml is not there)")
    config = yaml.safe_load((facts / "config.yaml").read_text())
    encoder = row_encoder.restore(facts)
    # Weights of others were only where training began; of their folder the run keeps the shape.
    node = config["model"] | ({"pretrained": str(facts)} if config["model"]["pretrained"] else {})
    trunk = build(node, vocab_size=encoder.tokenizer.vocab_size, weights=False)
    task = encoder.task
    model = Model(
        trunk, head_for(trunk, kind=task.kind, num_classes=task.num_classes, dropout=config["model"]["dropout"])
    )
    found = load_path(checkpoint or folder / "checkpoints" / "best")
    model.load_weights(list(found.weights.items()))
    model.eval()
    return Restored(model, encoder, config)

"""Data set and model of a config, each told what it must know of the other."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from mlxlab.config.instantiate import instantiate
from mlxlab.config.schema.root import BY_TASK
from mlxlab.errors import ConfigError


def build_data(cfg: Any, project: Path, tokenizer: Path | None, folder: Path) -> Any:
    """The data set of a config, told what it must know of the model.

    Args:
        tokenizer: folder of a tokenizer to be used; None has one trained.

    Raises:
        ConfigError: the objective is not among what this task is evaluated by.
    """
    from mlxlab.models.model import count_parameters

    # With hardly any vocabulary, and nothing of it is ever allocated.
    trunk = instantiate(dict(cfg["model"]) | {"pretrained": None}, vocab_size=8, weights=False)
    data = instantiate(
        cfg["data"],
        seed=cfg["seed"],
        cache=project / ".cache",
        pretrained=tokenizer,
        masked=not trunk.causal,
        width=trunk.width,
        parameters=count_parameters(trunk) - 8 * trunk.width,
        folder=folder,
    )
    if cfg["objective"] not in BY_TASK[data.task.kind]:
        expected = ", ".join(BY_TASK[data.task.kind])
        raise ConfigError(f"objective={cfg['objective']}: not measured on this data; expected one of {expected}")
    return data


def build_model(cfg: Any, data: Any, shape: Path | None = None) -> Any:
    """The model of a config for a data set, with the weights that the seed draws or that it was pretrained with.

    With `shape`, the `restore` folder of a run, only the shape of the pretrained model is read: weights follow.
    """
    import mlx.core as mx

    from mlxlab.models.heads import build_head
    from mlxlab.models.model import Model

    mx.random.seed(model_seed(cfg))
    task = data.task
    node = dict(cfg["model"])
    if shape is not None and node["pretrained"]:
        node["pretrained"] = str(shape)
    trunk = instantiate(node, vocab_size=data.tokenizer.vocab_size, weights=shape is None)
    head = build_head(trunk, kind=task.kind, num_classes=task.num_classes, dropout=cfg["model"]["dropout"])
    model = Model(trunk, head)
    mx.eval(model.parameters())
    return model


def save_inference_config(config: Any, data: Any, restore: Path) -> None:
    """What inference needs beside a checkpoint: the resolved config, and what the data set fitted."""
    restore.mkdir(parents=True, exist_ok=True)
    (restore / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    if config["model"]["pretrained"] and not (restore / "config.json").exists():
        from mlxlab.models.pretrained.load import save_config

        save_config(config["model"]["pretrained"], restore)
    data.save(restore)


def model_seed(cfg: Any) -> int:
    """The seed of weights and dropout: `seed`, and another one for each student that follows earlier ones."""
    return int(cfg["seed"] + len(cfg["trainer"].get("members", [])) * 0x9E3779B97F4A7C15) % 2**64


def package_versions() -> dict[str, str]:
    """Of what a bitwise resume depends on."""
    return {name: version(name) for name in ("mlxlab", "mlx", "numpy", "tokenizers")}

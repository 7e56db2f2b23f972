"""Builds a training session from its config: data set, model, trainer and state."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import yaml

from mlxlab.checkpoint.store import Checkpoint
from mlxlab.config.instantiate import instantiate
from mlxlab.config.paths import project_root
from mlxlab.config.schema.root import BY_TASK
from mlxlab.data.dataset import DataModule, check_data_module
from mlxlab.distillation.load_teachers import inherited_tokenizer, load_initial_weights, load_teachers
from mlxlab.distillation.options import read_options
from mlxlab.distillation.teachers import Teachers
from mlxlab.distributed.process_group import ProcessGroup
from mlxlab.errors import ConfigError
from mlxlab.files.atomic import write_atomic
from mlxlab.models import build
from mlxlab.models.model import Model, count_parameters
from mlxlab.tracking.tracker import NoTracker, Tracker
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.checkpointer import Checkpointer, NoCheckpointer
from mlxlab.training.loop import TrainingLoop
from mlxlab.training.state import TrainState
from mlxlab.training.trainer import Trainer

Config = dict[str, Any]  # a composed and checked config, resolved


@dataclass(frozen=True)
class Session:
    """Everything that `TrainingLoop` needs, built from one config. `messages` describe data and teachers."""

    cfg: Config
    data: DataModule
    model: Model
    trainer: Trainer
    teachers: Teachers
    context: FitContext
    messages: tuple[str, ...]

    def init_state(self) -> TrainState:
        """The state before the first step; to be made once, because a loss may add weights to the model."""
        state = self.trainer.init_state(self.model, self.data.train, model_seed(self.cfg))
        self.trainer.lr_schedule(state)  # refuses a warm-up that does not fit the run before anything is recorded
        return state

    def fit(
        self,
        state: TrainState,
        callbacks: list[Callback],
        checkpointer: Checkpointer | NoCheckpointer | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> TrainState:
        """Trains to the end of the run, from `checkpoint` if there is one."""
        data, args = self.data, (callbacks, checkpointer or NoCheckpointer(), model_seed(self.cfg))
        TrainingLoop(self.trainer, self.context, state, data.valid, data.task, *args).run(checkpoint)
        return state


def build_session(
    cfg: Config,
    run_dir: Path,
    *,
    inference_dir: Path | None = None,
    initialize: bool = True,
    tracker: Tracker | None = None,
    group: ProcessGroup | None = None,
) -> Session:
    """Builds what a config describes; raises UserError if data, teachers or weights are missing, damaged or do not fit.

    Args:
        run_dir: where the data set may write its plots.
        inference_dir: tokenizer and shapes of the run that is resumed; None fits or loads those that the config names.
        initialize: draw or load the initial weights; False where those of a checkpoint follow.
        tracker: None records nothing.
        group: the processes that train together; None is this process alone.
    """
    cache = project_root() / ".cache"
    data = build_data(cfg, project_root(), inference_dir or inherited_tokenizer(cfg, cache), run_dir)
    teachers, lines = load_teachers(cfg, data, cache)
    trainer = instantiate(cfg["trainer"], Trainer, class_counts=data.class_counts, loaded_teachers=teachers)
    model = build_model(cfg, data, shape=None if initialize else inference_dir)
    if initialize:
        load_initial_weights(cfg, model)
    tracker, processes = tracker or NoTracker(), group or ProcessGroup()
    context = FitContext(cfg["objective"], tracker, group=processes, labels=data.task.labels)
    return Session(cfg, data, model, trainer, teachers, context, (*data.sources, *lines))


def build_data(cfg: Config, project: Path, tokenizer: Path | None, folder: Path) -> DataModule:
    """Builds the data set of a config for its model, with the tokenizer in the folder `tokenizer`; None trains one.

    Raises:
        ConfigError: the objective is not a metric of this task, or the data set lacks a member of `DataModule`.
    """
    backbone = build.build_backbone(cfg["model"], vocab_size=1)  # an outline: its arrays are never evaluated
    dataset = instantiate(
        cfg["data"],
        seed=cfg["seed"],
        cache=project / ".cache",
        pretrained=tokenizer,
        masked=not backbone.causal,
        width=backbone.hidden_size,
        parameters=count_parameters(cast(nn.Module, backbone)) - backbone.embedding.weight.size,
        folder=folder,
    )
    data = check_data_module(dataset)
    metrics = BY_TASK[data.task.kind]
    if cfg["objective"] not in metrics:
        expected = ", ".join(metrics)
        raise ConfigError(f"objective={cfg['objective']}: not measured on this data; expected one of {expected}")
    return data


def build_model(cfg: Config, data: DataModule, shape: Path | None = None) -> Model:
    """Builds the model of a config; only the shape of a pretrained one if `shape`, a run's folder, is given."""
    seed, task, node = model_seed(cfg), data.task, dict(cfg["model"])
    mx.random.seed(seed)
    if shape is not None and node.get("pretrained"):
        node["pretrained"] = str(shape)
    sizes = {"num_classes": task.num_classes, "vocab_size": data.tokenizer.vocab_size}
    initial_seed = seed if shape is None else None
    model = build.build_model(node, kind=task.kind, **sizes, seed=initial_seed, load_pretrained=shape is None)
    limit, seq_len = model.backbone.position_limit, cfg["data"].get("seq_len")
    if limit is not None and seq_len is not None and seq_len > limit:
        raise ConfigError(f"data.seq_len={seq_len}: the model has positions for {limit} tokens")
    mx.eval(model.parameters())
    return model


def save_inference_config(config: Config, data: DataModule, inference_dir: Path) -> None:
    """Writes what inference needs besides a checkpoint: the resolved config, the tokenizer and the fitted encoder."""
    inference_dir.mkdir(parents=True, exist_ok=True)
    write_atomic(inference_dir / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    if config["model"].get("pretrained") and not (inference_dir / "config.json").exists():
        from mlxlab.models.pretrained.load import save_config

        save_config(config["model"]["pretrained"], inference_dir)
    data.save(inference_dir)


def model_seed(cfg: Config) -> int:
    """Seed of weights and dropout: `seed`, mixed with the number of earlier students of a multi-round run."""
    return int(cfg["seed"] + len(read_options(cfg).members) * 0x9E3779B97F4A7C15) % 2**64

"""What a config describes, built: the data, the model, the trainer, the tracker and the callbacks of a run, and its state."""

import logging
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from mlxlab.backend import one_blas_thread
from mlxlab.checkpoint.store import Checkpoint
from mlxlab.config.instantiate import instantiate
from mlxlab.config.paths import project_root
from mlxlab.data.dataset import DataModule
from mlxlab.distillation.load_teachers import TeacherLoader
from mlxlab.distillation.options import read_options
from mlxlab.distillation.teachers import Teachers
from mlxlab.errors import ConfigError
from mlxlab.evaluation.parts.data import Config, build_data, longest_row
from mlxlab.evaluation.parts.model import build_model, check_training_memory, model_node, model_seed
from mlxlab.models.build import Architecture, architecture_of
from mlxlab.models.model import Model
from mlxlab.models.options import split_node
from mlxlab.models.tabular import Tabular
from mlxlab.run.resume.start import Start
from mlxlab.terminal.messages import activity
from mlxlab.terminal.nearest import suggestion
from mlxlab.terminal.wording import counted
from mlxlab.tracking.tracker import NoTracker, Tracker
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.checkpointer import Checkpointer, NoCheckpointer
from mlxlab.training.distributed.process_group import ProcessGroup
from mlxlab.training.loop import TrainingLoop
from mlxlab.training.losses.task_loss import refuse_misfit
from mlxlab.training.state import TrainState
from mlxlab.training.trainer import Trainer

if TYPE_CHECKING:
    from mlxlab.evaluation.parts.initial_weights import InitialWeights

logger = logging.getLogger(__name__)


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
    architecture: Architecture
    initial_weights: "InitialWeights | None" = None  # `model.init_from` names them.

    @property
    def seed(self) -> int:
        return model_seed(self.cfg)

    def init_state(self) -> TrainState:
        """The state before the first step; to be made once, because a loss may add weights to the model."""
        state = self.trainer.init_state(self.model, self.data.train)
        state.architecture = self.architecture
        state.new_model = self.new_model
        # The schedule refuses a warm-up that does not fit the run, before anything is recorded.
        self.trainer.lr_schedule(state)
        return state

    def new_model(self, architecture: Architecture) -> Model:
        """A model of another architecture for the same data, teachers and loss, without weights."""
        has_teachers = self.teachers or self.teachers.residual_base
        is_resized = architecture.vocab_size != self.architecture.vocab_size
        if has_teachers and is_resized and self.data.task.kind == "language_modelling":
            raise ConfigError(
                f"a vocabulary of {architecture.vocab_size} tokens: "
                f"expected the {self.architecture.vocab_size} of the teachers' logits"
            )
        if architecture.vocab_size < self.data.tokenizer.vocab_size:
            raise ConfigError(
                f"a vocabulary of {architecture.vocab_size} tokens: "
                f"expected at least the {self.data.tokenizer.vocab_size} tokens of the data"
            )
        return self.build(architecture)

    def build(self, architecture: Architecture) -> Model:
        """A model as `new_model` makes it, also with fewer tokens than the data have: one that still grows."""
        return build_model(self.cfg, self.data, architecture)

    def fit(
        self,
        state: TrainState,
        callbacks: list[Callback],
        checkpointer: Checkpointer | NoCheckpointer | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> TrainState:
        """Trains to the end of the run, from `checkpoint` if there is one."""
        loop = TrainingLoop(
            self.trainer,
            self.context,
            state,
            self.data.valid,
            self.data.task,
            callbacks,
            checkpointer or NoCheckpointer(),
            self.seed,
        )
        # The threads of OpenBLAS spin longer than they compute on the small products of a table.
        is_table = isinstance(state.model.backbone, Tabular)
        with one_blas_thread() if is_table else nullcontext():
            loop.run(checkpoint)
        return state


def build_session(
    start: Start,
    run_dir: Path,
    *,
    tracker: Tracker | None = None,
    group: ProcessGroup | None = None,
) -> Session:
    """Builds what a run begins with; raises UserError if data, teachers or weights are missing, damaged or do not fit.

    Args:
        run_dir: where the data set may write its plots.
        tracker: None records nothing.
        group: None trains in this process alone.
    """
    cfg = start.cfg
    options = split_node(cfg["model"])[0]
    if options.quantization.bits is not None:
        from mlxlab.models.adapters.apply import refuse_training

        refuse_training(options)  # Reading the data, which comes next, may take long.
    loader = TeacherLoader(
        read_options(cfg["trainer"].get("distillation")), cfg["tracking"].get("uri")
    )
    plan = start.plan
    source = None
    name = cfg["model"].get("init_from")
    if plan is None and name is not None:
        from mlxlab.evaluation.parts.initial_weights import find_weights

        source = find_weights(name, cfg["tracking"].get("uri"))
    tokenizer = (
        start.inference_dir
        or (source and source.tokenizer)
        or loader.inherited_tokenizer(options.pretrained)
    )
    with activity("reading the data"):
        data = build_data(cfg, project_root(), tokenizer, run_dir, restored=start.inference_dir)
    if plan is None:
        architecture = architecture_of(model_node(cfg, data), data.tokenizer.vocab_size)
    else:
        architecture = plan.after
    router = cfg["trainer"]["loss"].get("router")
    with activity("loading the teachers"):
        teachers, lines = loader.load(
            data, longest_row(data, cfg["data"]), router, architecture.vocab_size
        )
    refuse_misfit(cfg["trainer"]["loss"], data.task.kind)
    runtime = {"task": data.task, "class_counts": data.class_counts, "loaded_teachers": teachers}
    trainer, notes = _with_epochs(
        instantiate(cfg["trainer"], Trainer, **runtime), data, start.epochs
    )
    processes = group or ProcessGroup()
    check_training_memory(cfg, architecture, data, trainer, processes.size)
    with activity("building the model and loading its weights"):
        if plan is None:
            model = build_model(cfg, data)
        else:
            model = build_model(cfg, data, plan.after, draw=plan.before != plan.after)
    initial = None
    if source is not None:
        min_match = cfg["resume_policy"].get("min_match", 1.0)
        initial = source.load_into(model, architecture.node, min_match)
    if plan is None:
        loader.load_initial_weights(model)
        if options.adapter is not None and not (options.pretrained or options.init_from):
            logger.warning(
                "model.adapter: the adapters train on random weights, which stay as they are;"
                " pass model.pretrained=... or model.init_from=..."
            )
    context = FitContext(
        cfg["objective"],
        tracker or NoTracker(),
        group=processes,
        valid=data.valid,
        training_rows=getattr(data, "training_rows", ()),
        loss=trainer.loss,
    )
    return Session(
        cfg,
        data,
        model,
        trainer,
        teachers,
        context,
        (*data.sources, *lines, *notes),
        architecture,
        initial,
    )


def _with_epochs(
    trainer: Trainer, data: DataModule, epochs: int | None
) -> tuple[Trainer, list[str]]:
    """The trainer with the epochs that `auto` is for this data, and a line where these are more than usual."""
    batches = data.train.batches_per_epoch
    if trainer.epochs == "auto" and epochs is not None:
        return replace(trainer, epochs=epochs), []
    chosen = trainer.for_data(data, batches)
    if chosen.length == trainer.length or trainer.max_steps is not None or batches is None:
        return chosen, []
    rows = "training"
    if hasattr(data, "num_examples"):
        rows = f"{data.num_examples['training']:,} training rows"
    steps = f"{chosen.epochs} epochs ({counted(chosen.length.steps(batches, None) or 0, 'step')})"
    return chosen, [f"{rows}: {steps} (trainer.epochs=auto)"]


def build_callbacks(cfg: Config, run_dir: Path) -> list[Callback]:
    """The callbacks of a config, in its order."""
    runtime = {"folder": run_dir, "cache": project_root() / ".cache", "seed": model_seed(cfg)}
    nodes = [node for node in cfg["callbacks"].values() if node is not None]
    return [check_callback(instantiate(node, **runtime)) for node in nodes]


def check_callback(candidate: object) -> Callback:
    """`candidate`, or a ConfigError if it is no callback, or has a method on_... that the loop never calls."""
    name = type(candidate).__qualname__
    if Callback not in type(candidate).__mro__:
        raise ConfigError(f"{name}: expected a subclass of {Callback.__module__}.Callback")
    known = [method for method in vars(Callback) if method.startswith("on_")]
    for method in dir(type(candidate)):  # An argument may be called on_error.
        if method.startswith("on_") and method not in known:
            raise ConfigError(f"{name}.{method}: no event of the loop{suggestion(method, known)}")
    return cast(Callback, candidate)

"""Trains one run from start to report: builds the data, model, trainer and tracker, and connects them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.checkpoint.frozen_weights import FOLDER as BASE
from mlxlab.checkpoint.names import FOLDER, folder_name
from mlxlab.checkpoint.store import Checkpoint
from mlxlab.config.instantiate import instantiate
from mlxlab.config.paths import project_root
from mlxlab.data.dataset import DataModule, RowEncoder
from mlxlab.distillation.load_teachers import TeacherLoader
from mlxlab.distillation.options import read_options
from mlxlab.distillation.teachers import DistillationReport, Teachers
from mlxlab.distributed.process_group import ProcessGroup
from mlxlab.errors import ConfigError, DivergenceError, RunInterrupted
from mlxlab.experiment.build import Config, build_callbacks, build_data, build_model, model_seed, save_inference_config
from mlxlab.experiment.final_evaluation.evaluate import evaluate_at_end
from mlxlab.experiment.final_evaluation.files import write_files
from mlxlab.experiment.final_evaluation.plots import save_plots
from mlxlab.experiment.metadata import (
    log_config_changes,
    log_transfer,
    run_inputs,
    run_metadata,
    run_name,
    run_outcome,
    run_tags,
    tracked_until_end,
)
from mlxlab.experiment.report import describe_training, log_lines, next_commands, write_report
from mlxlab.experiment.run import RunContext
from mlxlab.experiment.start import (
    admitted,
    carry_into,
    find_initial_weights,
    prepare_start,
    reject_misfit,
    set_aside_others,
)
from mlxlab.inference.predict import model_signature
from mlxlab.inference.restore import restore_encoder
from mlxlab.models.build import Architecture, architecture_of
from mlxlab.models.model import Model
from mlxlab.models.options import split_node
from mlxlab.tracking.tracker import NoTracker, Tracker
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.checkpointer import Checkpointer, NoCheckpointer, final_state_digest
from mlxlab.training.loop import TrainingLoop
from mlxlab.training.losses.task_loss import refuse_misfit
from mlxlab.training.state import TrainState
from mlxlab.training.trainer import Trainer

if TYPE_CHECKING:
    from mlxlab.experiment.initial_weights import InitialWeights


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
    architecture: Architecture  # of the model
    initial_weights: "InitialWeights | None" = None  # of `model.init_from`

    def init_state(self) -> TrainState:
        """The state before the first step; to be made once, because a loss may add weights to the model."""
        state = self.trainer.init_state(self.model, self.data.train, model_seed(self.cfg))
        state.architecture, state.new_model = self.architecture, self.new_model
        self.trainer.lr_schedule(state)  # refuses a warm-up that does not fit the run before anything is recorded
        return state

    def new_model(self, architecture: Architecture) -> Model:
        """A model of another architecture for the same data and loss, without weights."""
        if architecture.vocab_size < self.data.tokenizer.vocab_size:
            expected = f"expected at least the {self.data.tokenizer.vocab_size} tokens of the data"
            raise ConfigError(f"a vocabulary of {architecture.vocab_size} tokens: {expected}")
        model = build_model(self.cfg, self.data, architecture)
        self.trainer.loss.setup(model, model_seed(self.cfg))
        return model

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
    inference_dir: Path | None = None,
    *,
    saved: Architecture | None = None,
    draw: bool = False,
    tracker: Tracker | None = None,
    group: ProcessGroup | None = None,
) -> Session:
    """Builds what a config describes; raises UserError if data, teachers or weights are missing, damaged or do not fit.

    Args:
        run_dir: where the data set may write its plots.
        inference_dir: tokenizer and shapes of the run that is resumed; None fits or loads those that the config names.
        saved: architecture of the checkpoint whose weights follow, for a vocabulary that is not smaller; None draws or
            loads the initial ones.
        draw: whether the weights of a saved architecture are drawn too, for those that the checkpoint does not have.
        tracker, group: None records nothing, and trains in this process alone.
    """
    if (options := split_node(cfg["model"])[0]).quantization.bits is not None:
        from mlxlab.models.adapters.quantize import refuse_training

        refuse_training(options)  # now, since reading the data may take long
    loader = TeacherLoader(read_options(cfg["trainer"].get("distillation")), cfg["tracking"].get("uri"))
    source = find_initial_weights(cfg) if saved is None else None
    tokenizer = inference_dir or (source and source.tokenizer) or loader.inherited_tokenizer(options.pretrained)
    data = build_data(cfg, project_root(), tokenizer, run_dir, restored=inference_dir)
    teachers, lines = loader.load(data, cfg["data"].get("seq_len", 0), cfg["trainer"]["loss"].get("router"))
    refuse_misfit(cfg["trainer"]["loss"], data.task.kind)
    runtime = {"task": data.task, "class_counts": data.class_counts, "loaded_teachers": teachers}
    trainer = instantiate(cfg["trainer"], Trainer, **runtime)
    saved = saved and saved._replace(vocab_size=max(saved.vocab_size, data.tokenizer.vocab_size))
    model = build_model(cfg, data, saved, draw=draw)
    architecture = saved or architecture_of(cfg["model"], data.tokenizer.vocab_size, data.tokenizer.vocabulary)
    fit = (model, architecture.node, cfg["resume_policy"]["min_match"], data.tokenizer.vocabulary)
    initial = source.load_into(*fit) if source else None
    if saved is None:
        loader.load_initial_weights(model)
    processes = group or ProcessGroup()
    context = FitContext(cfg["objective"], tracker or NoTracker(), group=processes, valid=data.valid)
    return Session(cfg, data, model, trainer, teachers, context, (*data.sources, *lines), architecture, initial)


def train(requested: Config, context: RunContext) -> float:
    """Builds, fits and reports one run of the `requested` config; returns the best value of the objective."""
    run_dir, inference_dir = context.run_dir, context.run_dir / "inference"
    start = prepare_start(requested, context)
    cfg, changes, checkpoint, continues = start[:4]
    forked_from = None if continues else checkpoint
    last_step = -1 if checkpoint is None else checkpoint.step  # whose metrics are kept; -1: step 0 is logged again
    callbacks = build_callbacks(cfg, run_dir)
    tracker = context.build_tracker(cfg["tracking"])
    source, draw = start.inference_dir, start.after != start.before
    session = build_session(cfg, run_dir, source, saved=start.after, draw=draw, tracker=tracker, group=context.group)
    data = session.data
    checkpoint = admitted(start, data)
    state = session.init_state()
    if carried := carry_into(state, start, checkpoint, model_seed(cfg)) if checkpoint else None:
        checkpoint = carried.checkpoint
    if checkpoint is not None and reject_misfit(checkpoint, changes, state, requested["resume"], context):
        return train(requested, context)  # from an older checkpoint
    log_lines(*session.messages, *describe_training(session.model))
    save_inference_config(cfg, data, inference_dir)
    initial, name = session.initial_weights, run_name(cfg, run_dir)
    metadata = run_metadata(cfg, data, session.teachers, initial, checkpoint, start.requested)
    params = cfg | {"choices": metadata["choices"]}
    tracker.start(params, run_tags(cfg, session.model, forked_from), resumed=continues, name=name)
    session.context.metadata.update(metadata | {"uid": tracker.uid})
    log_lines(*tracker.describe())
    tracker.log_dataset(cfg["data"]["_target_"].rsplit(".", 1)[-1], data.fingerprint, data.sources[-1])
    tracker.log_artifact(inference_dir, "config")
    log_config_changes(changes, last_step, run_dir, tracker)
    if transfer := initial or carried:
        log_transfer(transfer.record(), transfer.lines(), run_dir, tracker)
    context.manifest.begin(run_inputs(cfg, metadata, forked_from), tracker.uid, name)
    with tracked_until_end(tracker):
        if continues:
            tracker.truncate_after(last_step)
        log_lines(*set_aside_others(checkpoint if continues else None, run_dir))
        return finish(session, fit_session(session, state, callbacks, checkpoint, context), context)


def fit_session(
    session: Session, state: TrainState, callbacks: list[Callback], checkpoint: Checkpoint | None, context: RunContext
) -> TrainState:
    """Trains with the callbacks that the rank of this process has; signals reach the loop from here on."""
    data, is_rank_zero = session.data, context.group.rank == 0
    if (teachers := session.teachers) or teachers.residual_base:
        report = DistillationReport(teachers, data.valid, data.task, session.trainer.eval_batches)
        callbacks = [*callbacks, report]
    callbacks = [callback for callback in callbacks if is_rank_zero or callback.runs_on_all_ranks]
    if checkpoint is not None:
        log_lines(f"resumed from {checkpoint.path.name}", *(f"skipped {line}" for line in checkpoint.skipped))
    if line := session.trainer.early_end(state.data.batches_per_epoch):
        log_lines(line)
    context.signals.attach(session.context.control)
    node = session.cfg["checkpointing"]
    checkpointer = instantiate(node, folder=context.run_dir) if is_rank_zero else NoCheckpointer(context.shared_dir)
    return session.fit(state, callbacks, checkpointer, checkpoint)


def finish(session: Session, state: TrainState, context: RunContext) -> float:
    """Reports a run that ended; RunInterrupted after a signal (the last state is saved), or DivergenceError."""
    signals, step = context.signals, state.progress.step
    stop_signal = session.context.control.stop_signal or signals.stop_signal  # of any rank
    digest = final_state_digest(state)
    extremes = [int(digest[:7], 16), -int(digest[:7], 16)]
    assert context.group.all_reduce_max(extremes) == extremes, "the processes of this run ended in different states"
    context.manifest.record(run_outcome(state, session.context.monitor, digest))
    if not stop_signal:
        stop_signal = report_run(session, state, context)
    print(f"final_state={digest}", flush=True)
    if stop_signal:
        if message := signals.requeue_job():
            log_lines(message)
        raise RunInterrupted(f"stopped at step {step} and saved; resume with resume=auto", stop_signal)
    if state.history.best is None:
        raise DivergenceError("no evaluation was finite: lower trainer.learning_rate or trainer.optimizer.weight_decay")
    return state.history.best


def report_run(session: Session, state: TrainState, context: RunContext) -> int:
    """Evaluates and reports a run that ended; returns the number of a signal that stopped this, else 0."""
    data, signals, tracker, run_dir = session.data, context.signals, session.context.tracker, context.run_dir
    args = (context.shared_dir, session.trainer.eval_batches, lambda: signals.stop_signal != 0)
    results = evaluate_at_end(state, data, tracker, *args)
    if results is None:
        return signals.stop_signal
    print(write_report(state, results, run_dir))
    for name in ("summary.md", "metrics.json"):
        tracker.log_artifact(run_dir / name, "")
    if results.splits:
        write_files(results, data, tracker, run_dir)
        save_plots(results, tracker, run_dir)
    best_step = state.history.best_step
    best = run_dir / FOLDER / folder_name(best_step)
    inference_dir = run_dir / "inference"
    _, encoder = restore_encoder(inference_dir)
    if best.is_dir():
        base = {"base": run_dir / BASE} if (run_dir / BASE).is_dir() else {}
        tracker.log_model(best, best_step, {"run": inference_dir, **base}, model_signature(encoder))
    generates = data.task.kind == "language_modelling" and not data.task.masked
    predicts = isinstance(encoder, RowEncoder)
    print("\n".join([f"run folder: {run_dir}", *next_commands(run_dir, generates=generates, predicts=predicts)]))
    return 0

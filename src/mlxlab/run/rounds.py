"""Rounds: students trained one after the other, each a run with the earlier ones as `trainer.distillation.members`."""

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import mlx.nn as nn

from mlxlab.checkpoint.names import FOLDER, ROUNDS, resumes_rounds
from mlxlab.config.paths import project_root
from mlxlab.distillation.load_teachers import TeacherLoader
from mlxlab.distillation.options import DistillationOptions, read_options
from mlxlab.errors import ConfigError
from mlxlab.evaluation.parts.data import Config, build_data, longest_row
from mlxlab.files.atomic import without_nonfinite
from mlxlab.inference.restore import restore_from, save_ensemble
from mlxlab.models.ensemble import Ensemble
from mlxlab.models.model import count_parameters
from mlxlab.past_runs.changes import CommandLine, key_class
from mlxlab.record.run_file import FILE, read_run
from mlxlab.record.run_record import Continuation, Evaluation, Metrics, RunRecord, SplitResult
from mlxlab.run.context import RunContext, set_aside_earlier_run
from mlxlab.run.metadata import new_record
from mlxlab.run.report import find_report, tracked_until_end
from mlxlab.run.resume.start import kernels_of_run, resume_config
from mlxlab.run.session import build_callbacks
from mlxlab.run.train import train
from mlxlab.run.writer import RunWriter
from mlxlab.schema.metric_names import VALID
from mlxlab.terminal.messages import log_lines
from mlxlab.tracking.journal import PARENT
from mlxlab.tracking.tracker import OVERRIDES
from mlxlab.training.evaluate import evaluate

PARAMETERS = "parameters"  # They are among the metrics of a model.


def train_rounds(requested: Config, context: RunContext) -> float:
    """Trains the missing rounds of a folder; returns the ensemble's value of the objective.

    Every rank trains each student; rank 0 evaluates and records.
    """
    resumed = resumes_rounds(requested["resume"], context.shared_dir)
    _check_resume(requested["resume"], resumed=resumed)
    record = open_rounds(requested, context, resumed=resumed)
    context.group.barrier()  # All have read the record before rank 0 writes it.
    cfg = record.config
    done = record.rounds
    total = read_options(cfg["trainer"]["distillation"]).rounds
    missing = range(len(done) + 1, total + 1)
    command = record.command
    if resumed and missing:
        command.continued.append(Continuation([*context.command.typed], rounds=len(done)))
    own = CommandLine(command.overrides, command.choices, command.first)
    context = replace(context, command=own)

    tracker = context.build_tracker(cfg["tracking"])
    report = find_report(build_callbacks(cfg, context.run_dir))
    tracker.start(
        cfg, {OVERRIDES: shlex.join(command.overrides)}, resumed=resumed, name=record.name
    )
    record.id = tracker.uid
    with tracked_until_end(tracker, context, report), _parent_run(tracker.uid):
        if resumed:
            tracker.truncate_after(len(done))
        else:
            log_lines(*set_aside_earlier_run(context.writer))
        context.writer.begin(record, trains=bool(missing) or not resumed)
        if context.group.rank == 0:
            (context.shared_dir / ROUNDS).mkdir(exist_ok=True)
        numbers = missing if total else [0]  # Without rounds, the members are evaluated once.
        for number in numbers:
            if number:
                print(f"round {number} of {total}", flush=True)
                train_round(cfg, context, number, resume="auto" if resumed else None)
            if context.group.rank == 0:
                metrics = evaluate_round(cfg, context.shared_dir, number)
                for model, values in metrics.items():
                    named = {f"{model}/{name}": value for name, value in values.items()}
                    tracker.log_metrics(number, named)
                record_round(without_nonfinite(metrics), context, number)
            context.group.barrier()  # The members of the next round are complete.
        best = context.writer.record.training.best
    return float("nan") if best is None else best


def open_rounds(requested: Config, context: RunContext, *, resumed: bool) -> RunRecord:
    """The record of new rounds, or that of the folder with what was typed.

    Raises:
        ConfigError: a key may not change.
        DataError: the record that had their config was damaged.
    """
    folder = context.shared_dir
    if not resumed:
        record = new_record(requested, context.command)
        record.name = requested["name"] or f"{folder.name} rounds"
        return record
    record = read_run(folder)
    past = record.command
    record.config, changes = resume_config(
        requested,
        record.config,
        past.choices,
        past.overrides,
        str(folder / FILE),
        continues=True,
    )
    if "distillation" not in record.config["trainer"]:
        raise ConfigError(
            f"trainer: expected trainer=distill, {folder} holds rounds of distillation"
        )
    for key in changes:
        if key_class(key) == "structural":
            raise ConfigError(f"{key}: cannot change in a run of several rounds; start a new one")
    command = context.command.after(past.overrides, past.choices)
    past.overrides = command.overrides
    past.choices = command.choices
    return record


def train_round(cfg: Config, context: RunContext, number: int, resume: str | None) -> None:
    """Trains the student of a round, with the kernels of the first."""
    kernels = None
    if number > 1:
        kernels = kernels_of_run(round_dir(context.shared_dir, 1))
    run_dir = context.run_dir / ROUNDS / str(number)
    with RunWriter(run_dir) as writer:
        own = replace(
            context,
            run_dir=run_dir,
            shared_dir=round_dir(context.shared_dir, number),
            writer=writer,
            kernels=kernels,
        )
        train(round_config(cfg, context.shared_dir, number) | {"resume": resume}, own)


def round_config(cfg: Config, folder: Path, number: int) -> Config:
    """The config of the run that is round `number`: all earlier students are members."""
    config = deepcopy(cfg)
    options = read_options(cfg["trainer"]["distillation"])
    teachers = options.teachers or []
    own = {"rounds": 1, "members": members(options, folder, number - 1), "teachers": teachers}
    config["trainer"]["teachers"] = teachers
    config["trainer"]["distillation"] |= own
    select = config["data"].get("select")
    if select is not None and select["source"] == "previous":
        if number > 1:
            select["source"] = str(round_dir(folder, number - 1))
        else:
            select |= {"source": None, "mode": None}  # The first round takes all examples.
    name = f"{cfg['name'] or folder.name} round {number}"
    return config | {"resume": None, "rerun": None, "name": name}


def members(options: DistillationOptions, folder: Path, number: int) -> list[str]:
    """The students of the config, and those of the rounds up to `number` with their last weights."""
    own = [round_dir(folder, earlier) / FOLDER / "last" for earlier in range(1, number + 1)]
    return [*options.members, *map(str, own)]


def round_dir(folder: Path, number: int) -> Path:
    return folder.absolute() / ROUNDS / str(number)


def evaluate_round(cfg: Config, folder: Path, number: int) -> dict[str, dict[str, float]]:
    """Metrics of teacher, student, every member and the ensemble on the validation rows."""
    config = round_config(cfg, folder, 1)
    options = read_options(cfg["trainer"]["distillation"])
    names = members(options, folder, number)
    save_ensemble(folder, [Path(name) for name in names], options.ensemble_mean)
    restored = [restore_from(Path(name)) for name in names]
    students = [each.model for each in restored]
    data = build_data(config, project_root(), restored[0].config_dir, folder)
    options = replace(options, members=[], teacher_cache=None)
    loader = TeacherLoader(options, config["tracking"].get("uri"))
    teachers, _ = loader.load(data, longest_row(data, config["data"]), router=None)

    models: dict[str, nn.Module] = {f"member {n}": each for n, each in enumerate(students, 1)}
    models["ensemble"] = Ensemble(students, mean=options.ensemble_mean, kind=data.task.kind)
    if number:
        models["student"] = students[-1]
    if teachers.ensemble:
        models["teacher"] = teachers.ensemble
    metrics = {}
    for name, model in models.items():
        evaluation = evaluate(model, data.valid, data.task, limit=config["trainer"]["eval_batches"])
        assert evaluation is not None
        metrics[name] = {**evaluation.metrics, PARAMETERS: float(count_parameters(model))}
    return metrics


def record_round(metrics: dict[str, Metrics], context: RunContext, number: int) -> None:
    """Records a round: the ensemble has the data of the students, and the steps of all of them."""
    writer = context.writer
    writer.record.rounds[max(number - 1, 0) :] = [metrics]
    ensemble = {**metrics["ensemble"]}
    parameters = int(ensemble.pop(PARAMETERS) or 0)
    result = SplitResult("valid", 0, ensemble)
    training = replace(
        writer.record.training,
        best=ensemble.get(writer.record.training.objective.removeprefix(VALID)),
        final={f"{VALID}{name}": value for name, value in ensemble.items()},
    )
    students = [read_run(round_dir(context.shared_dir, each)) for each in range(1, number + 1)]
    if students:
        last = students[-1]
        writer.record.data = last.data
        training.steps = sum(each.training.steps for each in students)
        training.tokens = sum(each.training.tokens for each in students)
        training.best_step = training.steps
        training.batches_per_epoch = last.training.batches_per_epoch
        for each in last.evaluation.results[:1]:
            result.rows = each.rows
            result.baselines = each.baselines
    writer.record.model.trainable = parameters
    writer.trained(training, parameters)
    models = {name: each for name, each in metrics.items() if name in ("student", "teacher")}
    writer.evaluated(Evaluation(results=[result], models=models))


def _check_resume(resume: str | None, *, resumed: bool) -> None:
    """Raises ConfigError for a checkpoint: rounds continue after the last complete one, in their own folder."""
    if resume in (None, "auto"):
        return
    is_whole_run = Path(resume).name == "last" or os.path.exists(os.path.expanduser(resume))
    if not resumed or not is_whole_run:
        raise ConfigError(
            f"resume={resume}: rounds of distillation continue where they stopped,"
            " in their own folder; expected resume=auto"
        )


@contextmanager
def _parent_run(uid: str) -> Iterator[None]:
    """Runs that start in this context become children of this run in the store."""
    before = os.environ.get(PARENT, "")
    os.environ[PARENT] = uid or before
    try:
        yield
    finally:
        os.environ[PARENT] = before

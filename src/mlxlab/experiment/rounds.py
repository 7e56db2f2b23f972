"""Rounds: students trained one after the other, each a run with the earlier ones as `trainer.distillation.members`."""

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypedDict

import mlx.nn as nn

from mlxlab import terminal
from mlxlab.checkpoint.names import FOLDER, KEYWORD, ROUNDS, resumes_rounds
from mlxlab.config.paths import project_root
from mlxlab.distillation.load_teachers import TeacherLoader
from mlxlab.distillation.options import read_options
from mlxlab.errors import ConfigError
from mlxlab.experiment.build import Config, build_callbacks, build_data, longest_row
from mlxlab.experiment.facts.training_facts import finite
from mlxlab.experiment.metadata import new_record
from mlxlab.experiment.past_run.earlier_run import set_aside_earlier_run
from mlxlab.experiment.resume.changes import key_class
from mlxlab.experiment.resume.kernels import kernels_of_run
from mlxlab.experiment.run import RunContext
from mlxlab.experiment.run_report import find_report, tracked_until_end
from mlxlab.experiment.run_writer import RunWriter
from mlxlab.experiment.start import resume_config
from mlxlab.experiment.train import train
from mlxlab.files.atomic import without_nonfinite, write_atomic, write_json
from mlxlab.files.untrusted import read_json
from mlxlab.inference.restore import restore_from, save_ensemble
from mlxlab.markdown import markdown_table
from mlxlab.metric_names import VALID
from mlxlab.models.ensemble import Ensemble
from mlxlab.models.model import count_parameters
from mlxlab.program import display_path
from mlxlab.record.run_record import Continuation
from mlxlab.terminal.messages import log_lines
from mlxlab.tracking.journal import PARENT
from mlxlab.tracking.tracker import Tracker
from mlxlab.training.evaluate import evaluate


class RoundsFile(TypedDict):
    """`rounds.json`: the config that a resume continues with, and the metrics by model of each completed round.

    `overrides` are those of all attempts, `choices` the options that they chose.
    """

    format: Literal[3]
    config: dict[str, Any]
    choices: dict[str, str]
    overrides: list[str]
    done: list[dict[str, dict[str, float | None]]]  # None: not finite


class DistillationRounds:
    """The rounds of one run folder. Every rank trains each student; rank 0 evaluates and records."""

    def __init__(self, cfg: Config, context: RunContext) -> None:
        self.folder, command = context.shared_dir, context.command
        path = self.folder / ROUNDS
        self.resumed, done = resumes_rounds(cfg["resume"], self.folder), []
        _check_resume(cfg["resume"], resumed=self.resumed)
        self.continued: list[Continuation] = []
        if self.resumed:
            saved = read_json(path, RoundsFile)
            past = saved["config"], saved["choices"], saved["overrides"], str(path)
            cfg, changes = resume_config(cfg, *past, continues=True)
            if "distillation" not in cfg["trainer"]:
                raise ConfigError(
                    f"trainer: expected trainer=distill, {self.folder} holds rounds of distillation"
                )
            if changed := [key for key in changes if key_class(key) == "structural"]:
                raise ConfigError(
                    f"{changed[0]}: cannot change in a run of several rounds; start a new one"
                )
            command, done = command.after(saved["overrides"], saved["choices"]), saved["done"]
            if earlier := context.writer.earlier:
                command = command._replace(first=earlier.command.first)
                self.continued += earlier.command.continued
        context.group.barrier()  # all have read the file before rank 0 writes it
        self.cfg, self.options = cfg, read_options(cfg["trainer"]["distillation"])
        if self.resumed and len(done) < self.options.rounds:
            self.continued.append(Continuation([*command.typed], rounds=len(done)))
        self.context = replace(context, command=command)
        self.state: RoundsFile = {
            "format": 3,
            "config": cfg,
            "choices": command.choices,
            "overrides": command.overrides,
            "done": done,
        }

    def run(self) -> float:
        """Trains the missing rounds; returns the ensemble's value of the objective."""
        tracker, done = self.context.build_tracker(self.cfg["tracking"]), len(self.state["done"])
        report = find_report(build_callbacks(self.cfg, self.context.run_dir))
        tags = {"kind": "rounds", "overrides": shlex.join(self.context.command.overrides)}
        name = self.cfg["name"] or f"{self.folder.name} rounds"
        tracker.start(self.cfg, tags, resumed=self.resumed, name=name)
        with tracked_until_end(tracker, self.context, report), _parent_run(tracker.uid):
            if self.resumed:
                tracker.truncate_after(done)
            else:
                log_lines(*set_aside_earlier_run(self.context.writer))
            self._write()
            record = new_record(self.cfg, self.context.command)
            record.id = tracker.uid
            record.name = name
            record.command.continued = self.continued
            record.rounds = self.state["done"]
            trains = done < self.options.rounds or not self.resumed
            self.context.writer.begin(record, trains=trains)
            for number in range(done + 1, self.options.rounds + 1):
                print(f"round {number} of {self.options.rounds}", flush=True)
                run_dir = self.context.run_dir / "rounds" / str(number)
                with RunWriter(run_dir) as writer:
                    shared_dir = self._round_dir(number)
                    kernels = kernels_of_run(self._round_dir(1)) if number > 1 else None
                    context = replace(
                        self.context, run_dir=run_dir, shared_dir=shared_dir, writer=writer
                    )
                    context = replace(context, kernels=kernels)
                    train(self.round_config(number), context)
                if self.context.group.rank == 0:
                    self._record(number, tracker)
                self.context.group.barrier()  # the members of the next round are complete
            return self._report(tracker) if self.context.group.rank == 0 else float("nan")

    def round_config(self, number: int) -> Config:
        """The config of the run that is round `number`: all earlier students are members."""
        config = deepcopy(self.cfg)
        teachers = self.options.teachers or []
        members = self.members(number - 1)
        config["trainer"]["teachers"] = teachers
        config["trainer"]["distillation"] |= {"rounds": 1, "members": members, "teachers": teachers}
        select = config["data"].get("select")
        if select is not None and select["source"] == "previous":
            first = {"source": None, "mode": None}  # takes all examples
            select |= {"source": str(self._round_dir(number - 1))} if number > 1 else first
        name = f"{self.cfg['name'] or self.folder.name} round {number}"
        return config | {"resume": "auto" if self.resumed else None, "rerun": None, "name": name}

    def members(self, number: int) -> list[str]:
        """The students of the config, and those of the rounds up to `number` with their last weights."""
        own = [str(self._round_dir(earlier) / FOLDER / "last") for earlier in range(1, number + 1)]
        return [*self.options.members, *own]

    def _round_dir(self, number: int) -> Path:
        return self.folder.absolute() / "rounds" / str(number)

    def _record(self, number: int, tracker: Tracker) -> None:
        """Evaluates the models after a round and records the round as completed."""
        save_ensemble(
            self.folder, [Path(name) for name in self.members(number)], self.options.ensemble_mean
        )
        evaluated = self._evaluate(number)
        if number:
            metrics = {
                f"{model}/{name}": v
                for model, values in evaluated.items()
                for name, v in values.items()
            }
            tracker.log_metrics(number, metrics)
        self.state["done"] = [*(self.state["done"] if number else []), without_nonfinite(evaluated)]
        self._write()
        ensemble = evaluated["ensemble"]
        writer = self.context.writer
        writer.record.rounds = self.state["done"]
        final = {f"{VALID}{name}": finite(value) for name, value in ensemble.items()}
        parameters = int(final.pop(f"{VALID}parameters") or 0)
        writer.record.model.trainable = parameters
        writer.trained(replace(writer.record.training, final=final), parameters)

    def _evaluate(self, number: int) -> dict[str, dict[str, float]]:
        """Metrics of teacher, student, every member and the ensemble on the validation data."""
        config, names = self.round_config(1), self.members(number)
        members = [restore_from(Path(name)).model for name in names]
        options = replace(self.options, members=names[:1], teacher_cache=None)
        loader = TeacherLoader(options, config["tracking"].get("uri"))
        tokenizer = loader.inherited_tokenizer(config["model"].get("pretrained"))
        data = build_data(config, project_root(), tokenizer, self.folder)
        loader = replace(loader, options=replace(options, members=[]))
        teachers, _ = loader.load(data, longest_row(data, config["data"]), router=None)
        models: dict[str, nn.Module] = {
            f"member {position}": model for position, model in enumerate(members, 1)
        }
        models |= {
            "ensemble": Ensemble(members, mean=self.options.ensemble_mean, kind=data.task.kind)
        }
        models |= {"student": members[-1]} if number else {}
        models |= {"teacher": teachers.ensemble} if teachers.ensemble else {}
        results = {}
        for name, model in models.items():
            evaluation = evaluate(
                model, data.valid, data.task, limit=config["trainer"]["eval_batches"]
            )
            assert evaluation is not None
            results[name] = {**evaluation.metrics, "parameters": float(count_parameters(model))}
        return results

    def _report(self, tracker: Tracker) -> float:
        """Prints the objective of each model after each round; returns that of the ensemble after the last."""
        if not self.options.rounds:
            self._record(0, tracker)
        metric, done = self.cfg["objective"].removeprefix(VALID), self.state["done"]
        rows = []
        for number, results in enumerate(done, 1 if self.options.rounds else 0):
            measured = {model: metrics.get(metric) for model, metrics in results.items()}
            values = {
                model: "-" if value is None else f"{value:.4f}" for model, value in measured.items()
            }
            models = [values.get(model, "-") for model in ("teacher", "student", "ensemble")]
            members = [value for model, value in values.items() if model.startswith("member ")]
            rows.append([str(number), *models, ", ".join(members)])
        head = [f"{metric} after round", "teacher", "student", "ensemble", "members"]
        table = markdown_table(head, rows, align="rrrrl")
        write_atomic(self.folder / "rounds.md", f"# {self.folder.name}\n\n{table}\n")
        tracker.log_artifact(self.folder / "rounds.md")
        terminal.show(f"{table}\nrun folder: {display_path(self.folder)}")
        value = done[-1]["ensemble"].get(metric)
        return float("nan") if value is None else value

    def _write(self) -> None:
        if self.context.group.rank == 0:
            write_json(self.folder / ROUNDS, self.state, durable=True)


def _check_resume(resume: str | None, *, resumed: bool) -> None:
    """Raises ConfigError for a checkpoint: rounds continue after the last complete one, in their own folder."""
    if resume in (None, "auto"):
        return
    which = Path(resume).name
    if not resumed:
        advice = "resume=auto continues those of the folder in hydra.run.dir"
        raise ConfigError(
            f"resume={resume}: rounds of distillation do not start from a run; {advice}"
        )
    if (
        which != "last"
        and KEYWORD.fullmatch(which)
        and not os.path.exists(os.path.expanduser(resume))
    ):
        raise ConfigError(
            f"resume={resume}: rounds of distillation continue where they stopped; expected resume=auto"
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

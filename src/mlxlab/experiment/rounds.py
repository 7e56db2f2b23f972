"""Rounds: students trained one after the other, each a run of its own; together they are an ensemble.

A round is an ordinary run with the earlier students as `trainer.distillation.members`. `rounds.json` lists the
metrics of the completed rounds.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from omegaconf import DictConfig, OmegaConf

from mlxlab.config.check import check
from mlxlab.config.hydra.overrides import cli_overrides, group_choices
from mlxlab.config.instantiate import instantiate
from mlxlab.config.paths import conf_dir, project_root
from mlxlab.config.resume_overrides import merge_for_resume
from mlxlab.distillation.options import read_options
from mlxlab.errors import RunInterrupted
from mlxlab.experiment.build import build_data
from mlxlab.experiment.manifest import without_nonfinite
from mlxlab.files.atomic import write_atomic, write_json
from mlxlab.files.untrusted import read_json
from mlxlab.tracking.journal import PARENT

if TYPE_CHECKING:
    from mlxlab.experiment.rank_zero import RankContext
    from mlxlab.tracking.tracker import Status, Tracker

FILE = "rounds.json"
Metrics = dict[str, float]


class RoundsFile(TypedDict):
    """`rounds.json`: the config that a resume continues with, and the metrics by model of each completed round."""

    format: Literal[2]
    config: dict[str, Any]
    choices: dict[str, str]
    done: list[dict[str, dict[str, float | None]]]  # None: not finite


def is_multi_round(cfg: Any) -> bool:
    """Whether the run consists of other runs."""
    return read_options(cfg).is_multi_round


class DistillationRounds:
    """The rounds of one run folder. Every rank trains each student; rank 0 evaluates and records.

    Args:
        train_round: trains a student with its config, given the number of its round.
        update_manifest: adds fields to the manifest of the run folder.

    Raises:
        DataError: rounds.json is damaged.
        ConfigError: a key was changed that may not change on resume.
    """

    def __init__(
        self,
        cfg: DictConfig,
        ranks: "RankContext",
        train_round: Callable[[DictConfig, int], float],
        update_manifest: Callable[..., None],
    ) -> None:
        self.ranks, self.folder, self.project = ranks, ranks.run_dir, project_root()
        self.train_round, self.update_manifest = train_round, update_manifest
        self.resumed = cfg.resume is not None and (self.folder / FILE).is_file()
        done = []
        if self.resumed:
            saved = read_json(self.folder / FILE, RoundsFile)
            composed: Any = OmegaConf.to_container(cfg, resolve=True)
            choices = (saved["choices"], group_choices())
            merged, _ = merge_for_resume(saved["config"], composed, cli_overrides(), choices, conf_dir())
            cfg, done = OmegaConf.create(merged), saved["done"]
            check(cfg)
        ranks.broadcast("")  # all have read the file before rank 0 writes it
        config: Any = OmegaConf.to_container(cfg, resolve=True)
        self.cfg, self.options = cfg, read_options(cfg)
        self.state: RoundsFile = {"format": 2, "config": config, "choices": group_choices(), "done": done}

    def run(self) -> float:
        """Trains the missing rounds; returns the ensemble's value of the objective.

        Raises:
            RunInterrupted: a signal ended a round; `resume=auto` resumes that round.
        """
        tracker: Tracker = instantiate(self.cfg.tracking, folder=self.folder, project=self.project)
        tags = {"kind": "rounds", "overrides": " ".join(cli_overrides())}
        name = self.cfg.name or f"{self.folder.name} rounds"
        tracker.start(self.state["config"], tags, resumed=self.resumed, name=name)
        status: Status = "FAILED"
        try:
            if self.resumed:
                tracker.truncate_after(len(self.state["done"]))
            with _parent_run(tracker.uid):
                value = self._train(tracker)
            status = "FINISHED"
            return value
        except (KeyboardInterrupt, RunInterrupted):
            status = "KILLED"
            raise
        finally:
            tracker.end(status)

    def _train(self, tracker: "Tracker") -> float:
        self._write()
        self.update_manifest(overrides=cli_overrides(), rounds_done=len(self.state["done"]))
        rounds = self.options.rounds
        for number in range(len(self.state["done"]) + 1, rounds + 1):
            print(f"round {number} of {rounds}", flush=True)
            self.train_round(self._config(number), number)
            if self.ranks.group.rank == 0:
                self._record(number, tracker)
            self.ranks.broadcast("")  # the members of the next round are complete
        if self.ranks.group.rank > 0:
            return float("nan")
        if not rounds:
            self._record(0, tracker)
        table = self._table()
        write_atomic(self.folder / "rounds.md", f"# {self.folder.name}\n\n{table}\n")
        tracker.log_artifact(self.folder / "rounds.md")
        print(f"{table}\nrun folder: {self.folder}")
        value = self.state["done"][-1]["ensemble"].get(self._objective())
        return float("nan") if value is None else value

    def _record(self, number: int, tracker: "Tracker") -> None:
        """Evaluates the models after a round and records the round as completed."""
        from mlxlab.inference.ensemble import save_ensemble

        save_ensemble(self.folder, [Path(name) for name in self._members(number)], self.options.ensemble_mean)
        evaluated = self._evaluate_models(number)
        if number:
            metrics = {f"{model}/{name}": v for model, values in evaluated.items() for name, v in values.items()}
            tracker.log_metrics(number, metrics)
        done = self.state["done"] if number else []
        self.state["done"] = [*done, without_nonfinite(evaluated)]
        self._write()
        final = {f"valid/{name}": value for name, value in evaluated["ensemble"].items() if name != "parameters"}
        outcome = {"final": final, "parameters": evaluated["ensemble"]["parameters"]}
        self.update_manifest(rounds_done=number, outcome=outcome)

    def _config(self, number: int) -> DictConfig:
        """The config of the run that is round `number`: all earlier students are members."""
        config = OmegaConf.create(self.state["config"])
        assert isinstance(config, DictConfig)
        distillation = config.trainer.distillation
        distillation.rounds, distillation.members = 1, self._members(number - 1)
        select = config.data.get("select")
        if select is not None and select.source == "previous":
            select.source = str(self._round_dir(number - 1)) if number > 1 else None
            select.mode = select.mode if number > 1 else None  # the first round takes all examples
        config.resume = "auto" if self.resumed else None
        config.name = f"{self.cfg.name or self.folder.name} round {number}"
        return config

    def _members(self, number: int) -> list[str]:
        """The students of the config, and those of the rounds up to `number` with their last weights."""
        own = [str(self._round_dir(earlier) / "checkpoints" / "last") for earlier in range(1, number + 1)]
        return [*self.options.members, *own]

    def _round_dir(self, number: int) -> Path:
        return self.folder.absolute() / "rounds" / str(number)

    def _evaluate_models(self, number: int) -> dict[str, Metrics]:
        """Metrics of teacher, student, every member and the ensemble on the validation data."""
        from mlxlab.distillation.load_teachers import inherited_tokenizer, load_teachers
        from mlxlab.inference.restore import restore_from
        from mlxlab.models.ensemble import Ensemble
        from mlxlab.models.model import count_parameters
        from mlxlab.training.evaluate import evaluate

        cfg = self._config(max(number, 1))
        names = self._members(number)
        members = [restore_from(Path(name)).model for name in names]
        distillation = cfg.trainer.distillation
        distillation.members, distillation.teacher_cache = names[:1], None
        config: Any = OmegaConf.to_container(cfg, resolve=True)
        data = build_data(config, self.project, inherited_tokenizer(cfg, self.project / ".cache"), self.folder)
        distillation.members = []
        teachers, _ = load_teachers(cfg, data, self.folder)
        models: dict[str, Any] = {f"member {position}": model for position, model in enumerate(members, 1)}
        models |= {"ensemble": Ensemble(members, mean=self.options.ensemble_mean)}
        models |= {"student": members[-1]} if number else {}
        models |= {"teacher": teachers.ensemble} if teachers else {}
        results = {}
        for name, model in models.items():
            evaluation = evaluate(model, data.valid, data.task, limit=self.cfg.trainer.eval_batches)
            assert evaluation is not None
            results[name] = {**evaluation.metrics, "parameters": float(count_parameters(model))}
        return results

    def _objective(self) -> str:
        return str(self.cfg.objective).removeprefix("valid/")

    def _table(self) -> str:
        """A row per round: the objective of each model."""
        metric, models = self._objective(), ("teacher", "student", "ensemble")
        lines = [f"| {metric} after round | teacher | student | ensemble | members |", "|--:|--:|--:|--:|:--|"]
        for number, results in enumerate(self.state["done"], 1 if self.options.rounds else 0):
            cells = [_cell(results.get(model, {}).get(metric)) for model in models]
            members = [_cell(values.get(metric)) for model, values in results.items() if model.startswith("member ")]
            lines.append(f"| {number} | {' | '.join(cells)} | {', '.join(members)} |")
        return "\n".join(lines)

    def _write(self) -> None:
        if self.ranks.group.rank == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / FILE, self.state, durable=True)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


@contextmanager
def _parent_run(uid: str) -> Iterator[None]:
    """Runs that start in this context become children of this run in the store."""
    before = os.environ.get(PARENT)
    if uid:
        os.environ[PARENT] = uid
    try:
        yield
    finally:
        os.environ.pop(PARENT, None)
        if before is not None:
            os.environ[PARENT] = before

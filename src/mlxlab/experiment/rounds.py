"""Rounds: students trained one after the other, each a run of its own; together they are an ensemble.

A round is an ordinary run with the earlier students as `trainer.distillation.members`. `rounds.json` lists the
metrics of the completed rounds.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from mlxlab.config.hydra.overrides import cli_overrides, group_choices
from mlxlab.config.instantiate import instantiate
from mlxlab.config.paths import conf_dir, project_root
from mlxlab.config.resume_overrides import merge_for_resume
from mlxlab.distillation.options import read_options
from mlxlab.errors import RunInterrupted
from mlxlab.experiment.build import build_data
from mlxlab.tracking.journal import PARENT

if TYPE_CHECKING:
    from mlxlab.tracking.tracker import Tracker

FILE = "rounds.json"
Metrics = dict[str, float]


def is_multi_round(cfg: Any) -> bool:
    """Does the run consist of other runs?"""
    return read_options(cfg).is_multi_round


class DistillationRounds:
    """The rounds of one run folder.

    Args:
        run_one: trains a student with its own config in its own folder.
        note: takes facts for the manifest of the run folder.
    """

    def __init__(
        self, cfg: DictConfig, folder: Path, run_one: Callable[[DictConfig, Path], float], note: Callable[..., None]
    ) -> None:
        self.folder, self.run_one, self.note, self.project = folder, run_one, note, project_root()
        self.state: dict[str, Any] = {"done": []}
        self.resumed = cfg.resume is not None and (folder / FILE).is_file()
        if self.resumed:
            self.state = json.loads((folder / FILE).read_text())
            composed: Any = OmegaConf.to_container(cfg, resolve=True)
            chosen = (self.state["choices"], group_choices())
            cfg = OmegaConf.create(
                merge_for_resume(self.state["config"], composed, cli_overrides(), chosen, conf_dir())[0]
            )
        self.cfg, self.options = cfg, read_options(cfg)
        self.state |= {"config": OmegaConf.to_container(cfg, resolve=True), "choices": group_choices()}

    def run(self) -> float:
        """Trains what is missing; returns the ensemble's value of the objective.

        Raises:
            RunInterrupted: a signal ended a round; `resume=auto` goes on with that very round.
        """
        tracker: Tracker = instantiate(self.cfg.tracking, folder=self.folder, project=self.project)
        tags = {"kind": "rounds", "overrides": " ".join(cli_overrides())}
        name = self.cfg.name or f"{self.folder.name} rounds"
        tracker.start(self.state["config"], tags, resumed=self.resumed, name=name)
        before, status = os.environ.get(PARENT), "FAILED"
        if tracker.uid:
            os.environ[PARENT] = tracker.uid
        try:
            value = self._train(tracker)
            status = "FINISHED"
            return value
        except (KeyboardInterrupt, RunInterrupted):
            status = "KILLED"
            raise
        finally:
            os.environ.pop(PARENT, None)
            if before is not None:
                os.environ[PARENT] = before
            tracker.end(status)  # type: ignore[arg-type]

    def _train(self, tracker: "Tracker") -> float:
        from mlxlab.inference.ensemble import save_ensemble

        self._write()
        self.note(overrides=cli_overrides(), rounds_done=len(self.state["done"]))
        rounds = self.options.rounds
        for number in range(len(self.state["done"]) + 1, rounds + 1):
            print(f"round {number} of {rounds}", flush=True)
            self.run_one(self._config(number), self._place(number))
            save_ensemble(self.folder, [Path(name) for name in self._members(number)], self.options.ensemble_mean)
            measured = self._measure(number)
            tracker.log_metrics(number, {f"{who}/{name}": v for who, ms in measured.items() for name, v in ms.items()})
            self.state["done"].append(measured)
            self._write()
            self.note(rounds_done=number, outcome=measured["ensemble"])
        if not rounds:
            save_ensemble(self.folder, [Path(name) for name in self._members(0)], self.options.ensemble_mean)
            self.state["done"] = [self._measure(0)]
            self._write()
        table = self._table()
        (self.folder / "rounds.md").write_text(f"# {self.folder.name}\n\n{table}\n")
        tracker.log_artifact(self.folder / "rounds.md")
        print(f"{table}\nrun folder: {self.folder}")
        return float(self.state["done"][-1]["ensemble"].get(self._objective(), float("nan")))

    def _config(self, number: int) -> DictConfig:
        """That of the run which is round `number`: all students before it are members."""
        mine = OmegaConf.create(self.state["config"])
        assert isinstance(mine, DictConfig)
        distillation = mine.trainer.distillation
        distillation.rounds, distillation.members = 1, self._members(number - 1)
        select = mine.data.get("select")
        if select is not None and select.source == "previous":
            select.source = str(self._place(number - 1)) if number > 1 else None
            select.mode = select.mode if number > 1 else None  # the first round has all there is
        mine.resume = "auto" if self.resumed else None
        mine.name = f"{self.cfg.name or self.folder.name} round {number}"
        return mine

    def _members(self, number: int) -> list[str]:
        """The students given at the start, and those of the rounds up to `number`, with their last weights."""
        own = [str(self._place(round) / "checkpoints" / "last") for round in range(1, number + 1)]
        return [*self.options.members, *own]

    def _place(self, number: int) -> Path:
        return self.folder.absolute() / "rounds" / str(number)

    def _measure(self, number: int) -> dict[str, Metrics]:
        """Teacher, student, every member and the ensemble on the validation rows."""
        from mlxlab.distillation.load_teachers import inherited_tokenizer, load_teachers
        from mlxlab.inference.restore import restore_from
        from mlxlab.models.ensemble import Ensemble
        from mlxlab.models.model import count_parameters
        from mlxlab.training.evaluate import evaluate

        cfg = self._config(max(number, 1))
        names = self._members(number)
        models = [restore_from(Path(name)).model for name in names]
        distillation = cfg.trainer.distillation
        distillation.members, distillation.teacher_cache = names[:1], None
        config: Any = OmegaConf.to_container(cfg, resolve=True)
        data = build_data(config, self.project, inherited_tokenizer(cfg, self.project / ".cache"), self.folder)
        distillation.members = []
        teachers, _ = load_teachers(cfg, data, self.folder)
        asked: dict[str, Any] = {f"member {place}": model for place, model in enumerate(models, 1)}
        asked |= {"ensemble": Ensemble(models, mean=self.options.ensemble_mean)}
        asked |= {"student": models[-1]} if number else {}
        asked |= {"teacher": teachers.ensemble} if teachers else {}
        measured = {}
        for who, model in asked.items():
            found = evaluate(model, data.valid, data.task, limit=self.cfg.trainer.eval_batches)
            assert found is not None
            measured[who] = {**found.metrics, "parameters": float(count_parameters(model))}
        return measured

    def _objective(self) -> str:
        return str(self.cfg.objective).removeprefix("valid/")

    def _table(self) -> str:
        """A line per round: the objective of each who was asked."""
        name, asked = self._objective(), ("teacher", "student", "ensemble")
        lines = [f"| {name} after round | teacher | student | ensemble | members |", "|--:|--:|--:|--:|:--|"]
        for number, measured in enumerate(self.state["done"], 1 if self.options.rounds else 0):
            cells = [f"{measured[who][name]:.4f}" if who in measured else "-" for who in asked]
            members = [f"{ms[name]:.4f}" for who, ms in measured.items() if who.startswith("member ")]
            lines.append(f"| {number} | {' | '.join(cells)} | {', '.join(members)} |")
        return "\n".join(lines)

    def _write(self) -> None:
        """Replaced as a whole: a reader finds the old one or the new one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{FILE}"
        temporary.write_text(json.dumps(self.state, indent=1) + "\n")
        temporary.replace(self.folder / FILE)

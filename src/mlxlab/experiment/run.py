"""The composition root: builds the parts, fits, reports. The only place that knows every part."""

import hashlib
import json
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from mlxlab import backend
from mlxlab.config.check import check
from mlxlab.config.hydra.overrides import choices, typed_overrides
from mlxlab.config.instantiate import build
from mlxlab.config.paths import conf_dir, project_root
from mlxlab.config.resume_overrides import merge, record
from mlxlab.errors import Stopped
from mlxlab.experiment.build import draw_seed, new_data, new_model, versions, write_facts
from mlxlab.experiment.lock import RunLock
from mlxlab.experiment.manifest import Manifest, outcome_of, parents_of, split_of
from mlxlab.experiment.rank_zero import Company, joined
from mlxlab.experiment.rounds import Rounds, has_rounds
from mlxlab.tracking import provenance
from mlxlab.tracking.journal import PARENT

if TYPE_CHECKING:
    from mlxlab.checkpoint.store import Checkpoint
    from mlxlab.experiment.signals import Listener
    from mlxlab.tracking.tracker import Tracker
    from mlxlab.training.state import Run


def run(cfg: DictConfig, folder: Path) -> float:
    """Runs one experiment in its folder and returns the best value of `cfg.objective`.

    Raises:
        Fault: whatever the user can mend, with its exit code; Stopped when a signal ended the run.
    """
    lock, listener = RunLock(folder), build(cfg.signals)
    lock.acquire()
    listener.start()
    try:
        with Manifest(folder, _commit) as manifest:
            backend.prepare()
            if has_rounds(cfg):
                whole: Any = OmegaConf.to_container(cfg, resolve=True)
                note = partial(manifest.begin, versions=versions(), parents=parents_of(whole), **split_of(whole))
                return Rounds(cfg, folder, partial(_round, listener=listener), note).run()
            with joined(cfg, folder) as (cfg, company):
                return _Experiment(cfg, folder, listener, manifest, company).run()
    finally:
        listener.stop()
        lock.release()


def _round(cfg: DictConfig, folder: Path, *, listener: "Listener") -> float:
    with Manifest(folder, _commit) as manifest:
        from mlxlab.distributed.process_group import Alone

        return _Experiment(cfg, folder, listener, manifest, Company(Alone(), folder)).run()


class _Experiment:
    """The parts of one run, in the order in which they need each other."""

    def __init__(
        self, cfg: DictConfig, folder: Path, listener: "Listener", manifest: Manifest, company: Company
    ) -> None:
        self.cfg, self.folder, self.listener, self.manifest, self.company = cfg, folder, listener, manifest, company
        self.project = project_root()
        self.changes: dict[str, tuple[Any, Any]] = {}

    def run(self) -> float:
        from mlxlab.checkpoint.resume import resolve_resume
        from mlxlab.distillation.load_teachers import first_weights, tokenizer_folder, trainer_for

        checkpoint = resolve_resume(self.cfg.resume, self.folder)
        if checkpoint is not None:
            self._go_on_from(checkpoint)
        restore = self.folder / "restore"
        tokenizer = restore if checkpoint is not None else tokenizer_folder(self.cfg, self.project / ".cache")
        self.data = new_data(self.cfg, self.project, tokenizer, self.folder)
        if checkpoint is not None:
            checkpoint = self._admitted(checkpoint)
        trainer, taught_by, teachers = trainer_for(self.cfg, self.data, self.project / ".cache")
        for line in (*self.data.sources, *teachers):
            say(line)
        model = new_model(self.cfg, self.data, shape=restore if checkpoint is not None else None)
        if checkpoint is None:
            first_weights(self.cfg, model)
        tracker: Tracker = build(self.cfg.tracking, folder=self.folder, project=self.project)
        run = self._new_run(model, tracker)
        run.facts["teachers"] = taught_by.names
        write_facts(self.resolved, self.data, self.folder / "restore")
        tracker.start(self.resolved, self._tags(model), resumed=checkpoint is not None, name=self._name())
        run.facts["uid"] = tracker.uid
        for line in tracker.describe():
            say(line)
        self._hand_over(tracker)
        self._record_changes(tracker, checkpoint)
        self.manifest.begin(**self._card(run, checkpoint))
        status: Any = "FAILED"
        try:
            self._fit(trainer, run, checkpoint)
            status = "KILLED" if run.signal else "FINISHED"
            return self._finish(run)
        except (KeyboardInterrupt, Stopped):
            status = "KILLED"
            raise
        finally:
            tracker.end(status)

    def _go_on_from(self, checkpoint: "Checkpoint") -> None:
        """The config of the checkpoint, and on top of it what was typed now."""
        facts = checkpoint.state["facts"]
        composed: Any = OmegaConf.to_container(self.cfg, resolve=True)
        chosen = (facts["choices"], choices())
        merged, self.changes = merge(facts["config"], composed, typed_overrides(), chosen, conf_dir())
        self.cfg = OmegaConf.create(merged)
        check(self.cfg)

    def _admitted(self, checkpoint: "Checkpoint") -> "Checkpoint":
        policy = build(self.cfg.resume_policy)
        state = policy.admit(checkpoint.state, self.data.fingerprint, self.data.tokenizer.fingerprint)
        return replace(checkpoint, state=state)

    def _record_changes(self, tracker: "Tracker", checkpoint: "Checkpoint | None") -> None:
        """`resume_changes.json` and tags: what the run was resumed with, old and new."""
        if checkpoint is None or not self.changes:
            return
        file, number = record(self.folder, checkpoint.step, self.changes)
        said = {key: f"{old} -> {new}" for key, (old, new) in self.changes.items()}
        for key, change in said.items():
            say(f"changed since the checkpoint: {key}: {change}")
        tracker.tag({f"resume.{number}.{key}": change for key, change in said.items()})
        tracker.artifact(file, "config")

    def _new_run(self, model: Any, tracker: "Tracker") -> "Run":
        from mlxlab.training.state import Objective, Run

        self.resolved: Any = OmegaConf.to_container(self.cfg, resolve=True)
        facts = {
            "config": self.resolved,
            "config_hash": hashlib.sha256(json.dumps(self.resolved, sort_keys=True).encode()).hexdigest(),
            "choices": choices(),
            "versions": versions(),
            "data": self.data.fingerprint,
            "held_out": self.data.held_out,
            "tokenizer": self.data.tokenizer.fingerprint,
        }
        return Run(
            model=model,
            train=self.data.train,
            objective=Objective(self.cfg.objective),
            tracker=tracker,
            max_skips=self.cfg.trainer.max_skips,
            facts=facts,
            labels=self.data.task.labels,
        )

    def _fit(self, trainer: Any, run: "Run", checkpoint: "Checkpoint | None") -> None:
        given = {"folder": self.folder, "cache": self.project / ".cache"}
        callbacks = [build(node, **given) for node in self.cfg.callbacks.values() if node is not None]
        if checkpoint is not None:
            say(f"resumed from {checkpoint.path.name}")
            for line in checkpoint.skipped:
                say(f"skipped {line}", error=True)
            run.tracker.rewind(checkpoint.step)
        self.listener.watch(run)
        group, callbacks = self.company.group, self.company.admit(run, callbacks)
        trainer.fit(run, self.data.valid, self.data.task, callbacks, checkpoint, draw_seed(self.cfg), group)

    def _finish(self, run: "Run") -> float:
        from mlxlab.callbacks.checkpointing import hash_of

        state = self.company.agreed(hash_of(run))
        self.manifest.update(outcome=outcome_of(run, state))
        if self.listener.stopping:
            print(f"final_state={state}")
            if requeued := self.listener.put_back():
                say(requeued)
            raise Stopped(f"stopped at step {run.step} and saved; go on with resume=auto", self.listener.stopping)
        self._report(run)
        print(f"final_state={state}", flush=True)
        return run.best if run.best is not None else float("nan")

    def _report(self, run: "Run") -> None:
        from mlxlab.experiment.report import write_report
        from mlxlab.inference.signature import served_signature

        print(write_report(run, self.data.baselines(), self.folder))
        for path, to in (("summary.md", ""), ("metrics.json", "")):
            run.tracker.artifact(self.folder / path, to)
        best = self.folder / "checkpoints" / f"step-{run.best_step:08d}"
        if best.is_dir():
            run.tracker.model(
                best,
                step=run.best_step,
                files={"run": self.folder / "restore"},
                signature=served_signature(self.data.task),
            )
        print(f"run folder: {self.folder}")

    def _name(self) -> str:
        chosen = choices()
        parts = [chosen[group] for group in ("model", "model/size", "data", "trainer") if group in chosen]
        return self.cfg.name or "-".join(parts) or self.folder.name

    def _card(self, run: "Run", checkpoint: "Checkpoint | None") -> dict[str, Any]:
        """What the manifest says of the run before it trains."""
        elsewhere = checkpoint is not None and not checkpoint.path.absolute().is_relative_to(self.folder.absolute())
        resumed = checkpoint.path if checkpoint is not None and elsewhere else None
        return {
            "id": run.tracker.uid or None,
            "name": self._name(),
            "parents": parents_of(self.resolved, resumed, os.environ.get(PARENT, "")),
            "overrides": typed_overrides(),
            **split_of(self.resolved),
            **{key: run.facts.get(key) for key in ("config_hash", "versions", "data", "tokenizer", "teachers")},
        }

    def _tags(self, model: Any) -> dict[str, str]:
        from mlxlab.models.model import count_parameters

        tags = {
            "overrides": " ".join(typed_overrides()),
            "parameters": str(count_parameters(model)),
            "objective": self.cfg.objective,
        }
        return tags | {str(key): str(value) for key, value in self.cfg.tags.items()} | backend.describe()

    def _hand_over(self, tracker: "Tracker") -> None:
        tracker.dataset(self.cfg.data._target_.rsplit(".", 1)[-1], self.data.fingerprint, self.data.sources[-1])
        tracker.artifact(self.folder / "restore", "config")


def _commit() -> dict[str, Any]:
    found = provenance.git(project_root())
    return {"git": {"commit": found.get("mlflow.source.git.commit"), "dirty": found["git.dirty"]}}


def say(line: str, *, error: bool = False) -> None:
    """A line for the user; results go to standard output, everything else beside it."""
    print(line, file=sys.stderr, flush=True)

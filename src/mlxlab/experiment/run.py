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
from mlxlab.config.hydra.overrides import cli_overrides, group_choices
from mlxlab.config.instantiate import instantiate
from mlxlab.config.paths import conf_dir, project_root
from mlxlab.config.resume_overrides import merge_for_resume, record_changes
from mlxlab.errors import RunInterrupted
from mlxlab.experiment.build import build_data, build_model, model_seed, package_versions, save_inference_config
from mlxlab.experiment.lock import RunLock
from mlxlab.experiment.manifest import RunManifest, lineage, pairing_key, run_outcome
from mlxlab.experiment.rank_zero import RankContext, distributed_context
from mlxlab.experiment.rounds import DistillationRounds, is_multi_round
from mlxlab.tracking import provenance
from mlxlab.tracking.journal import PARENT

if TYPE_CHECKING:
    from mlxlab.checkpoint.store import Checkpoint
    from mlxlab.experiment.signals import SignalHandler
    from mlxlab.tracking.tracker import Tracker
    from mlxlab.training.state import Run


def run(cfg: DictConfig, folder: Path) -> float:
    """Runs one experiment in its folder and returns the best value of `cfg.objective`.

    Raises:
        UserError: whatever the user can mend, with its exit code; Stopped when a signal ended the run.
    """
    lock, listener = RunLock(folder), instantiate(cfg.signals)
    lock.acquire()
    listener.start()
    try:
        with RunManifest(folder, _commit) as manifest:
            backend.prepare()
            if is_multi_round(cfg):
                whole: Any = OmegaConf.to_container(cfg, resolve=True)
                note = partial(
                    manifest.begin, versions=package_versions(), parents=lineage(whole), **pairing_key(whole)
                )
                return DistillationRounds(cfg, folder, partial(_round, listener=listener), note).run()
            with distributed_context(cfg, folder) as (cfg, company):
                return _Experiment(cfg, folder, listener, manifest, company).run()
    finally:
        listener.stop()
        lock.release()


def _round(cfg: DictConfig, folder: Path, *, listener: "SignalHandler") -> float:
    with RunManifest(folder, _commit) as manifest:
        from mlxlab.distributed.process_group import SingleProcess

        return _Experiment(cfg, folder, listener, manifest, RankContext(SingleProcess(), folder)).run()


class _Experiment:
    """The parts of one run, in the order in which they need each other."""

    def __init__(
        self, cfg: DictConfig, folder: Path, listener: "SignalHandler", manifest: RunManifest, company: RankContext
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
        self.data = build_data(self.cfg, self.project, tokenizer, self.folder)
        if checkpoint is not None:
            checkpoint = self._admitted(checkpoint)
        trainer, taught_by, teachers = trainer_for(self.cfg, self.data, self.project / ".cache")
        for line in (*self.data.sources, *teachers):
            print_status(line)
        model = build_model(self.cfg, self.data, shape=restore if checkpoint is not None else None)
        if checkpoint is None:
            first_weights(self.cfg, model)
        tracker: Tracker = instantiate(self.cfg.tracking, folder=self.folder, project=self.project)
        run = self._new_run(model, tracker)
        run.facts["teachers"] = taught_by.names
        save_inference_config(self.resolved, self.data, self.folder / "restore")
        tracker.start(self.resolved, self._tags(model), resumed=checkpoint is not None, name=self._name())
        run.facts["uid"] = tracker.uid
        for line in tracker.describe():
            print_status(line)
        self._hand_over(tracker)
        self._record_changes(tracker, checkpoint)
        self.manifest.begin(**self._card(run, checkpoint))
        status: Any = "FAILED"
        try:
            self._fit(trainer, run, checkpoint)
            status = "KILLED" if run.signal else "FINISHED"
            return self._finish(run)
        except (KeyboardInterrupt, RunInterrupted):
            status = "KILLED"
            raise
        finally:
            tracker.end(status)

    def _go_on_from(self, checkpoint: "Checkpoint") -> None:
        """The config of the checkpoint, and on top of it what was typed now."""
        facts = checkpoint.state["facts"]
        composed: Any = OmegaConf.to_container(self.cfg, resolve=True)
        chosen = (facts["choices"], group_choices())
        merged, self.changes = merge_for_resume(facts["config"], composed, cli_overrides(), chosen, conf_dir())
        self.cfg = OmegaConf.create(merged)
        check(self.cfg)

    def _admitted(self, checkpoint: "Checkpoint") -> "Checkpoint":
        policy = instantiate(self.cfg.resume_policy)
        state = policy.admit(checkpoint.state, self.data.fingerprint, self.data.tokenizer.fingerprint)
        return replace(checkpoint, state=state)

    def _record_changes(self, tracker: "Tracker", checkpoint: "Checkpoint | None") -> None:
        """`resume_changes.json` and tags: what the run was resumed with, old and new."""
        if checkpoint is None or not self.changes:
            return
        file, number = record_changes(self.folder, checkpoint.step, self.changes)
        said = {key: f"{old} -> {new}" for key, (old, new) in self.changes.items()}
        for key, change in said.items():
            print_status(f"changed since the checkpoint: {key}: {change}")
        tracker.tag({f"resume.{number}.{key}": change for key, change in said.items()})
        tracker.artifact(file, "config")

    def _new_run(self, model: Any, tracker: "Tracker") -> "Run":
        from mlxlab.training.state import MonitoredMetric, Run

        self.resolved: Any = OmegaConf.to_container(self.cfg, resolve=True)
        facts = {
            "config": self.resolved,
            "config_hash": hashlib.sha256(json.dumps(self.resolved, sort_keys=True).encode()).hexdigest(),
            "choices": group_choices(),
            "versions": package_versions(),
            "data": self.data.fingerprint,
            "held_out": self.data.held_out,
            "tokenizer": self.data.tokenizer.fingerprint,
        }
        return Run(
            model=model,
            train=self.data.train,
            objective=MonitoredMetric(self.cfg.objective),
            tracker=tracker,
            max_skips=self.cfg.trainer.max_skips,
            facts=facts,
            labels=self.data.task.labels,
        )

    def _fit(self, trainer: Any, run: "Run", checkpoint: "Checkpoint | None") -> None:
        given = {"folder": self.folder, "cache": self.project / ".cache"}
        callbacks = [instantiate(node, **given) for node in self.cfg.callbacks.values() if node is not None]
        if checkpoint is not None:
            print_status(f"resumed from {checkpoint.path.name}")
            for line in checkpoint.skipped:
                print_status(f"skipped {line}", error=True)
            run.tracker.rewind(checkpoint.step)
        self.listener.watch(run)
        group, callbacks = self.company.group, self.company.admit(run, callbacks)
        trainer.fit(run, self.data.valid, self.data.task, callbacks, checkpoint, model_seed(self.cfg), group)

    def _finish(self, run: "Run") -> float:
        from mlxlab.callbacks.checkpointing import run_state_digest

        state = self.company.agreed(run_state_digest(run))
        self.manifest.update(outcome=run_outcome(run, state))
        if self.listener.stopping:
            print(f"final_state={state}")
            if requeued := self.listener.put_back():
                print_status(requeued)
            raise RunInterrupted(
                f"stopped at step {run.step} and saved; go on with resume=auto", self.listener.stopping
            )
        self._report(run)
        print(f"final_state={state}", flush=True)
        return run.best if run.best is not None else float("nan")

    def _report(self, run: "Run") -> None:
        from mlxlab.experiment.report import write_report
        from mlxlab.inference.signature import model_signature

        print(write_report(run, self.data.baselines(), self.folder))
        for name in ("summary.md", "metrics.json"):
            run.tracker.artifact(self.folder / name, "")
        best = self.folder / "checkpoints" / f"step-{run.best_step:08d}"
        if best.is_dir():
            run.tracker.model(
                best,
                step=run.best_step,
                files={"run": self.folder / "restore"},
                signature=model_signature(self.data.task),
            )
        print(f"run folder: {self.folder}")

    def _name(self) -> str:
        chosen = group_choices()
        parts = [chosen[group] for group in ("model", "model/size", "data", "trainer") if group in chosen]
        return self.cfg.name or "-".join(parts) or self.folder.name

    def _card(self, run: "Run", checkpoint: "Checkpoint | None") -> dict[str, Any]:
        """What the manifest says of the run before it trains."""
        elsewhere = checkpoint is not None and not checkpoint.path.absolute().is_relative_to(self.folder.absolute())
        resumed = checkpoint.path if checkpoint is not None and elsewhere else None
        return {
            "id": run.tracker.uid or None,
            "name": self._name(),
            "parents": lineage(self.resolved, resumed, os.environ.get(PARENT, "")),
            "overrides": cli_overrides(),
            **pairing_key(self.resolved),
            **{key: run.facts.get(key) for key in ("config_hash", "versions", "data", "tokenizer", "teachers")},
        }

    def _tags(self, model: Any) -> dict[str, str]:
        from mlxlab.models.model import count_parameters

        overrides, parameters = " ".join(cli_overrides()), str(count_parameters(model))
        tags = {"overrides": overrides, "parameters": parameters, "objective": self.cfg.objective}
        return tags | {str(key): str(value) for key, value in self.cfg.tags.items()} | backend.describe()

    def _hand_over(self, tracker: "Tracker") -> None:
        tracker.dataset(self.cfg.data._target_.rsplit(".", 1)[-1], self.data.fingerprint, self.data.sources[-1])
        tracker.artifact(self.folder / "restore", "config")


def _commit() -> dict[str, Any]:
    found = provenance.git(project_root())
    return {"git": {"commit": found.get("mlflow.source.git.commit"), "dirty": found["git.dirty"]}}


def print_status(line: str, *, error: bool = False) -> None:
    """A line for the user; results go to standard output, everything else beside it."""
    print(line, file=sys.stderr, flush=True)

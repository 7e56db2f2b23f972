"""The keys at the top of every config, as a signature: the schema of `conf/train.yaml`."""

from dataclasses import replace

from mlxlab.config.schema.signature import Component, Signature, read_signature
from mlxlab.schema.constraints import Seed
from mlxlab.schema.metric_names import Metric

TARGET = f"{__name__}.experiment"
MODEL_OPTIONS = "mlxlab.models.options.ModelOptions"


def node_signature(target: str, path: str) -> Signature | None:
    """The keys of the node at `path`: those of its target, and of a model the options that every model has."""
    known = read_signature(target)
    if known is None or path != "model":
        return known
    options = read_signature(MODEL_OPTIONS)
    assert options is not None
    return replace(known, keys=known.keys | options.keys)


def experiment(
    model: Component,
    data: Component,
    trainer: Component,
    callbacks: dict[str, Component],
    checkpointing: Component,
    tracking: Component,
    cloud: Component,
    seed: Seed,
    name: str | None,
    tags: dict[str, str | int | float | bool],
    objective: Metric,
    backend: Component,
    signals: Component,
    resume: str | None,
    resume_policy: Component,
    rerun: str | None,
    trust_folder: bool = False,
) -> None:
    """One experiment.

    Args:
        model: the network; its size is chosen by `model/size`.
        data: the data set, and with it the task.
        trainer: how it learns.
        callbacks: actions around training steps, by name; `~callbacks.progress_bar` leaves one out.
        checkpointing: when the state is saved, and how many checkpoints are kept.
        tracking: where it is recorded.
        cloud: where copies of the checkpoints go.
        seed: of everything random; the same seed gives the same run.
        name: what the run is called in the store; null makes one from model, data and trainer.
        tags: words to find the run by, `tags={for: thesis}`.
        objective: the metric that chooses the best checkpoint and that a sweep minimises or maximises.
        backend: what it computes with.
        signals: what a signal does.
        resume: null starts a new run; auto resumes if the run folder holds a checkpoint; last, best and emergency
            need one there; else a checkpoint, a run folder, or its address: s3://, gs://, az:// or file://.
        resume_policy: what may have changed since the checkpoint.
        rerun: trains a past run again in a new folder, with its config and the changes typed: its folder, or its id.
        trust_folder: typed together with resume, rerun or sweep.resume, admits all that the config of that folder names:
            tracking, cloud, callbacks, addresses. For folders of your own; it has no effect in a file.
    """

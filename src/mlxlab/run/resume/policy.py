"""What may change when a run is resumed: the protocol of `resume_policy`, and the policy that keeps the model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from mlxlab.checkpoint.store import Checkpoint
from mlxlab.checkpoint.transfer_report import TransferRecord
from mlxlab.data.dataset import DataModule
from mlxlab.errors import ConfigError, NotAllowedError
from mlxlab.evaluation.parts.data import Config
from mlxlab.models.build import Architecture
from mlxlab.past_runs.changes import Changes
from mlxlab.schema.constraints import Probability
from mlxlab.terminal.wording import shown
from mlxlab.training.state import TrainState

TOKENIZER = "data.tokenizer.path"


@dataclass(frozen=True)
class Plan:
    """What becomes of a checkpoint whose run is resumed; nothing is built yet.

    Attributes:
        policy: made the plan, and carries it out.
        cfg: config of the run that resumes.
        before: architecture of the checkpoint.
        after: architecture of the model to build.
        changes: key -> (value in the checkpoint, value from now on).
        operations: lead from one architecture to the other; only the policy reads them.
    """

    policy: "ResumePolicy"
    cfg: Config
    checkpoint: Checkpoint
    before: Architecture
    after: Architecture
    changes: Changes
    operations: Sequence[dict[str, Any]] = ()


class Transfer(Protocol):
    """Arrays that came from another model: the initial weights, or those of a checkpoint."""

    def record(self) -> TransferRecord: ...

    def lines(self) -> list[str]: ...


@runtime_checkable
class ResumePolicy(Protocol):
    """Decides which differences between a checkpoint and the run that resumes from it are allowed."""

    def plan(self, plan: Plan) -> Plan:
        """The plan of a resume with another model, if its config asks for one.

        Args:
            plan: that of the same model.

        Raises:
            ConfigError: the model of the config cannot be reached.
        """

    def carry(
        self, plan: Plan, state: TrainState, data: DataModule
    ) -> tuple[Checkpoint, Transfer | None]:
        """The checkpoint for a new state, and what became of its arrays if the model changed.

        Raises:
            ConfigError: the checkpoint cannot become that of the model.
            DataError, NotAllowedError: too little of it fits, or the data changed.
        """


@dataclass(frozen=True)
class SameModel:
    """The model and the tokenizer stay those of the checkpoint. Implements `ResumePolicy`.

    Args:
        allow_data_change: resume although the data, or its preprocessing, has changed.
        min_match: share of the arrays of `model.init_from` that must fit the model.
    """

    allow_data_change: bool
    min_match: Probability = 1.0

    def plan(self, plan: Plan) -> Plan:
        refuse_change(plan.changes, TOKENIZER, "tokenizer")
        refuse_change(plan.changes, "model.", "model")
        return plan

    def carry(self, plan: Plan, state: TrainState, data: DataModule) -> tuple[Checkpoint, None]:
        return admit_data(plan.checkpoint, data, allow_change=self.allow_data_change), None


def refuse_change(changes: Changes, prefix: str, owner: str) -> None:
    """ConfigError for a change of a key with this prefix; with another tokenizer, tokens would have other ids."""
    for key, (old, new) in changes.items():
        if key.startswith(prefix):
            raise ConfigError(
                f"{key}={shown(new)}: was {shown(old)} in the checkpoint;"
                f" the {owner} stays as it is on resume"
            )


def admit_data(checkpoint: Checkpoint, data: DataModule, *, allow_change: bool) -> Checkpoint:
    """The checkpoint for the current data; NotAllowedError if the data or its tokenizer is another."""
    state = checkpoint.state
    saved = state["metadata"]
    tokenizer = data.tokenizer.fingerprint
    if saved["tokenizer"] != tokenizer:
        digests = f"{saved['tokenizer'][:12]} then, {tokenizer[:12]} now"
        raise NotAllowedError(f"the tokenizer changed since the save ({digests})")
    before = saved["data"]
    fingerprint = data.fingerprint
    if before == fingerprint:
        return checkpoint
    if not allow_change:
        raise NotAllowedError(
            f"the data changed since the save ({before[:12]} then, {fingerprint[:12]} now);"
            " resume_policy.allow_data_change=true resumes all the same"
        )
    state = {**state, "data": state["data"] | {"fingerprint": fingerprint}}
    return replace(checkpoint, state=state)

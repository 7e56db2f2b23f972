"""The model registry of a store: versions of models, their aliases, and every move of an alias.

MLflow keeps only where an alias is now. Each move is also written as a tag of the registered model, after the move: if
the process dies in between, the same command again completes it.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal, TypedDict, TypeVar

from annotated_types import Ge

from mlxlab.errors import ConfigError, DataError
from mlxlab.files.untrusted import parse_json
from mlxlab.metric_names import is_better
from mlxlab.tracking.mlflow.client import UID
from mlxlab.tracking.mlflow.errors import printable
from mlxlab.tracking.records import Number, Registration, Time

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from mlflow.store.entities import PagedList

T = TypeVar("T")

DATA, STEP, METRICS = "mlxlab.data", "mlxlab.step", "mlxlab.metrics"  # tags of a version
OUTCOME = "mlxlab.outcome"  # ... with the alias: its registration was carried out
MOVE = "mlxlab.move."  # tag of a model, with a number
PAGE = 1000

Kind = Literal["registered", "promoted", "rolled back"]
VersionNumber = Annotated[int, Ge(1)]


class AliasMove(TypedDict):
    t: Time
    alias: str
    version: VersionNumber
    previous: VersionNumber | None  # version that had the alias
    kind: Kind
    reason: str


@dataclass(frozen=True)
class Version:
    """A version of a registered model. What another program registered has no data, step or metrics."""

    number: int
    created: int  # ms since 1970
    run_id: str
    source: str  # URI of the logged model
    data: str = ""  # fingerprint of the training data
    step: str = ""  # of the checkpoint
    metrics: dict[str, float] = field(default_factory=dict)  # at that step
    aliases: tuple[str, ...] = ()


class ModelRegistry:
    """The registry of an open store. Names that do not exist raise ConfigError, everything else what MLflow raises."""

    def __init__(self, client: "MlflowClient") -> None:
        self.client = client

    def names(self) -> list[str]:
        models: list[RegisteredModel] = _all_pages(self.client.search_registered_models)
        return [model.name for model in models]

    def aliases(self, name: str) -> dict[str, int]:
        aliases = self.client.get_registered_model(name).aliases
        return {alias: int(version) for alias, version in sorted(aliases.items())}

    def versions(self, name: str) -> list[Version]:
        aliases = self.aliases(name)
        items: list[ModelVersion] = _all_pages(self.client.search_model_versions, f"name='{name}'")
        versions = [_version(item, aliases) for item in items]
        return sorted(versions, key=lambda version: -version.number)

    def params(self, run_id: str) -> dict[str, str]:
        from mlflow.exceptions import MlflowException

        with suppress(MlflowException):  # the run was deleted
            return dict(self.client.get_run(run_id).data.params)
        return {}

    def moves(self, name: str) -> list[AliasMove]:
        tags = self.client.get_registered_model(name).tags
        return [
            parse_json(tags[key], AliasMove, f"{name}: tag {key}")
            for key in sorted(tags)
            if key.startswith(MOVE)
        ]

    def register(self, uid: str, run_id: str, model_uri: str, registration: Registration) -> str:
        """Registers a model once, and moves the alias if it is better; returns what was done, as a line."""
        name, alias = registration["name"], registration["alias"]
        version = self._existing(run_id, registration) or self._create(
            uid, run_id, model_uri, registration
        )
        key = _outcome_key(registration)
        if key in version.tags:  # the record was sent before
            return printable(version.tags[key])
        number = int(version.version)
        outcome = f"registered {name} version {number}"
        if alias:
            moves, reason = self._compare(number, alias, registration)
            if moves:
                self.move(name, alias, number, "registered", reason)
            outcome += f", {alias} {'is' if moves else 'stays at'} version {self.aliases(name)[alias]}: {reason}"
        self.client.set_model_version_tag(name, str(number), key, outcome)
        return outcome

    def outcome(self, run_id: str, registration: Registration) -> str | None:
        """What `register` did when the record was sent before; None if it was not."""
        version = self._existing(run_id, registration)
        return version and version.tags.get(_outcome_key(registration))

    def move(self, name: str, alias: str, version: int, kind: Kind, reason: str = "") -> bool:
        """Gives a version the alias; False if it has it already."""
        moves, previous = self.moves(name), self.aliases(name).get(alias)
        last = next((move["version"] for move in reversed(moves) if move["alias"] == alias), None)
        if previous == version == last:
            return False
        if previous != version:
            self.client.set_registered_model_alias(name, alias, str(version))
        move: AliasMove = {
            "t": time.time_ns() // 1_000_000,
            "alias": alias,
            "version": version,
            "previous": last if previous == version else previous,
            "kind": kind,
            "reason": reason,
        }
        self.client.set_registered_model_tag(name, f"{MOVE}{len(moves) + 1:06d}", json.dumps(move))
        return True

    def rollback(self, name: str, alias: str) -> tuple[int, bool]:
        """Gives the alias back to the version that had it before the last move; returns it, and whether it moved.

        A second rollback changes nothing: to go back further, promote that version.
        """
        moves = [move for move in self.moves(name) if move["alias"] == alias]
        if not moves:
            raise ConfigError(
                f"{name}: no move of alias {alias} is known; choose a version with promote"
            )
        last, now = moves[-1], self.aliases(name).get(alias)
        if last["kind"] == "rolled back" and now == last["version"]:
            return last["version"], False
        if now not in (last["version"], last["previous"]):
            where = "is gone" if now is None else f"is at version {now}"
            remedy = "choose a version with promote"
            raise ConfigError(
                f"{name}: {alias} {where}, was moved to {last['version']} last; {remedy}"
            )
        if (target := last["previous"]) is None:
            raise ConfigError(f"{name}: version {last['version']} is the first with alias {alias}")
        if target not in {version.number for version in self.versions(name)}:
            raise ConfigError(
                f"{name}: version {target}, which had alias {alias} before, was deleted"
            )
        return target, self.move(
            name, alias, target, "rolled back", f"from version {last['version']}"
        )

    def _existing(self, run_id: str, registration: Registration) -> "ModelVersion | None":
        condition = f"name='{registration['name']}' and run_id='{run_id}'"
        of_run: list[ModelVersion] = _all_pages(self.client.search_model_versions, condition)
        return next(
            (item for item in of_run if item.tags.get(STEP) == str(registration["step"])), None
        )

    def _create(
        self, uid: str, run_id: str, model_uri: str, registration: Registration
    ) -> "ModelVersion":
        from mlflow.exceptions import MlflowException

        name = registration["name"]
        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        metrics = json.dumps(registration["metrics"])
        tags = {
            UID: uid,
            DATA: registration["data"],
            STEP: str(registration["step"]),
            METRICS: metrics,
        }
        model_id = model_uri.removeprefix("models:/")
        return self.client.create_model_version(
            name, model_uri, run_id, tags=tags, model_id=model_id
        )

    def _compare(self, number: int, alias: str, registration: Registration) -> tuple[bool, str]:
        """Whether version `number` takes the alias, and why."""
        name, metric = registration["name"], registration["metric"]
        versions = {version.number: version for version in self.versions(name)}
        holder = versions.get(self.aliases(name).get(alias, 0))
        if holder is None or holder.number == number:
            return True, "the first with this alias"
        if metric is None:
            return True, f"the newest, before it version {holder.number}"
        new, old = (
            versions[each].metrics.get(metric, math.nan) for each in (number, holder.number)
        )
        if math.isnan(old) and not math.isnan(new):
            return False, f"version {holder.number} has no {metric} to compare with; see promote"
        delta = registration["min_improvement"]
        better = is_better(metric, new, old, delta)
        margin = f" by more than {delta:g}" if delta else ""
        reason = f"{metric} {new:.6g} is {'' if better else 'not '}better than {old:.6g}{margin}"
        other = versions[number].data != holder.data
        text = f"; version {holder.number} was trained on other data or another split of it"
        return better, reason + (text if other else "")


def _outcome_key(registration: Registration) -> str:
    return f"{OUTCOME}.{registration['alias']}" if registration["alias"] else OUTCOME


def version_of(
    number: int,
    created: int,
    run_id: str | None,
    source: str | None,
    tags: Mapping[str, str],
    aliases: dict[str, int],
) -> Version:
    """A version from its row and tags in the store, which anyone may have set."""
    try:
        metrics = parse_json(tags.get(METRICS, "{}"), dict[str, Number], METRICS)
    except DataError:
        metrics = {}
    return Version(
        number,
        created,
        run_id or "",
        source or "",
        printable(tags.get(DATA, "")),
        printable(tags.get(STEP, "")),
        {printable(key): float(value) for key, value in metrics.items()},
        tuple(alias for alias, version in aliases.items() if version == number),
    )


def _version(item: "ModelVersion", aliases: dict[str, int]) -> Version:
    row = (int(item.version), int(item.creation_timestamp), item.run_id, item.source)
    return version_of(*row, item.tags, aliases)


def _all_pages(search: "Callable[..., PagedList[T]]", condition: str | None = None) -> list[T]:
    """All results of a search of MLflow's client, which returns pages."""
    results: list[T] = []
    token = None
    while True:
        page = search(condition, max_results=PAGE, page_token=token)
        results += page
        token = page.token
        if not token:
            return results

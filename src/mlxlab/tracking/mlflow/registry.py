"""The model registry of a store: versions of models, and which of them has an alias.

MLflow keeps only where an alias is now. A tag of the registered model keeps its last move, for `rollback`.
"""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypedDict, TypeVar

from annotated_types import Ge

from mlxlab.errors import (
    ConfigError,
    DataError,
    NotAllowedError,
    ServiceUnavailableError,
    UserError,
)
from mlxlab.files.untrusted import parse_json
from mlxlab.metric_names import is_better
from mlxlab.tracking.mlflow import queue
from mlxlab.tracking.mlflow.address import Address
from mlxlab.tracking.mlflow.client import UID, MlflowStore
from mlxlab.tracking.mlflow.errors import StoreUnavailableError, classify_error, one_line, printable
from mlxlab.tracking.mlflow.log_model import find_model, model_uri
from mlxlab.tracking.records import Number, Registration

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from mlflow.store.entities import PagedList

T = TypeVar("T")

# Tags of a version. OUTCOME, with the alias, says that its registration was carried out.
DATA, STEP, METRICS = "mlxlab.data", "mlxlab.step", "mlxlab.metrics"
OUTCOME = "mlxlab.outcome"
MOVE = "mlxlab.move."  # Tag of a registered model, with the alias.
PAGE = 1000
MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")
REFUSALS = (
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "FEATURE_DISABLED",
    "ENDPOINT_NOT_FOUND",
    "NOT_IMPLEMENTED",
)
FOREIGN = "the run was not started here; to trust it: runs sync RUN_FOLDER register=true"

VersionNumber = Annotated[int, Ge(1)]


class AliasMove(TypedDict):
    version: VersionNumber
    previous: VersionNumber | None  # version that had the alias


@dataclass(frozen=True)
class Version:
    """A version of a registered model. What another program registered has no data, step or metrics."""

    number: int
    created: int  # ms since 1970
    run_id: str
    data: str  # fingerprint of the training data
    step: str  # of the checkpoint
    metrics: dict[str, float]  # at that step
    aliases: tuple[str, ...]


@contextmanager
def open_registry(address: Address, *, writes: bool) -> Iterator["ModelRegistry"]:
    """The registry of a store. To write it, the syncer stops meanwhile: one process at a time writes a store.

    Raises:
        ServiceUnavailableError: there is no store, it cannot be used, or another process is writing it for too long.
        ConfigError: MLflow knows no model or version of the name that it was asked for.
    """
    if address.database is not None and not address.database.is_file():
        raise ServiceUnavailableError(
            f"{address.shown}: no store found; a run with tracking=mlflow creates it"
        )
    with ExitStack() as stack:
        if writes:
            stack.enter_context(queue.only_writer(address))
        try:
            store = MlflowStore(address)
            stack.callback(store.close)
            yield ModelRegistry(store.client)
        except UserError:
            raise
        except Exception as error:  # of MLflow, of a database or of HTTP: it has no common base
            is_missing = getattr(error, "error_code", "") in MISSING
            kind = ConfigError if is_missing else ServiceUnavailableError
            raise kind(f"{address.shown}: {one_line(error)}") from None


def register_model(
    client: "MlflowClient",
    uid: str,
    ids: tuple[str, str],
    registration: Registration,
    *,
    is_foreign: bool,
) -> str:
    """Registers the model that a journal asks for: the one that its own run has logged, and only if the run is ours.

    Args:
        ids: of the experiment and of the run.

    Raises:
        DataError: the model cannot be registered, now or later.
        NotAllowedError: a stranger may have written the journal: an alias would serve his model.
    """
    title = f"model {registration['name']}"
    registry = ModelRegistry(client)
    try:
        if is_foreign:
            version = registry.find_registered(ids[1], registration)
            outcome = version and version.tags.get(_outcome_key(registration))
            if not outcome:
                raise NotAllowedError(f"{title}: {FOREIGN}")
            return printable(outcome)
        model = find_model(client, *ids, registration["step"])
        if model is None or model.status != "READY":
            raise DataError(
                f"{title}: the checkpoint of step {registration['step']} was not logged"
            )
        return registry.register(uid, ids[1], model_uri(model), registration)
    except UserError:
        raise
    except Exception as error:  # of MLflow, of a database or of HTTP: it has no common base
        is_refused = getattr(error, "error_code", "") in REFUSALS
        if isinstance(classify_error(error), StoreUnavailableError) and not is_refused:
            raise  # the record is sent again
        raise DataError(f"{title}: {one_line(error)}") from error


class ModelRegistry:
    """The registry of an open store. Its methods raise what MLflow raises."""

    def __init__(self, client: "MlflowClient") -> None:
        self.client = client

    def names(self) -> list[str]:
        models: list[RegisteredModel] = _all_pages(self.client.search_registered_models)
        return [model.name for model in models]

    def aliases(self, name: str) -> dict[str, int]:
        aliases = self.client.get_registered_model(name).aliases
        return {alias: int(version) for alias, version in sorted(aliases.items())}

    def versions(self, name: str) -> list[Version]:
        """Newest first."""
        aliases = self.aliases(name)
        items: list[ModelVersion] = _all_pages(self.client.search_model_versions, f"name='{name}'")
        versions = [_version(item, aliases) for item in items]
        return sorted(versions, key=lambda version: -version.number)

    def find_version(self, name: str, label: str) -> int:
        """The version of a number or an alias; ConfigError if there is none."""
        for version in self.versions(name):
            if label == str(version.number) or label in version.aliases:
                return version.number
        raise ConfigError(f"{name}: no version or alias {label}")

    def register(self, uid: str, run_id: str, model_uri: str, registration: Registration) -> str:
        """Registers a model once, and moves the alias if it is better; returns what was done, as a line."""
        name, alias = registration["name"], registration["alias"]
        version = self.find_registered(run_id, registration)
        if version is None:
            version = self._create(uid, run_id, model_uri, registration)
        key = _outcome_key(registration)
        if key in version.tags:  # The record was sent before.
            return printable(version.tags[key])
        number = int(version.version)
        outcome = f"registered {name} version {number}"
        if alias:
            moves, reason = self._compare(number, alias, registration)
            if moves:
                self.move(name, alias, number)
                outcome += f", {alias} is version {number}: {reason}"
            else:
                outcome += f", {alias} stays at version {self.aliases(name)[alias]}: {reason}"
        self.client.set_model_version_tag(name, str(number), key, outcome)
        return outcome

    def find_registered(self, run_id: str, registration: Registration) -> "ModelVersion | None":
        """The version of an earlier registration of the same checkpoint."""
        condition = f"name='{registration['name']}' and run_id='{run_id}'"
        versions: list[ModelVersion] = _all_pages(self.client.search_model_versions, condition)
        step = str(registration["step"])
        return next((version for version in versions if version.tags.get(STEP) == step), None)

    def move(self, name: str, alias: str, version: int) -> bool:
        """Gives a version the alias; False if it has it already."""
        previous = self.aliases(name).get(alias)
        if previous == version:
            return False
        move: AliasMove = {"version": version, "previous": previous}
        # The tag comes first: if the process dies in between, the same command again completes the move.
        self.client.set_registered_model_tag(name, MOVE + alias, json.dumps(move))
        self.client.set_registered_model_alias(name, alias, str(version))
        return True

    def rollback(self, name: str, alias: str) -> tuple[int, bool]:
        """Gives the alias back to the version that had it before the last move; returns it, and whether it moved.

        A second rollback changes nothing: to go back further, promote that version.
        """
        now = self.aliases(name).get(alias)
        tag = self.client.get_registered_model(name).tags.get(MOVE + alias)
        if tag is None:
            raise ConfigError(f"{name}: no move of alias {alias} is known")
        move = parse_json(tag, AliasMove, f"{name}: tag {MOVE}{alias}")
        target = move["previous"]
        if target is None:
            raise ConfigError(f"{name}: version {move['version']} is the first with alias {alias}")
        if now == target:
            return target, False
        if now != move["version"]:
            raise ConfigError(f"{name}: another program moved {alias}; choose a version by promote")
        self.client.set_registered_model_alias(name, alias, str(target))
        return target, True

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
        tags = {
            UID: uid,
            DATA: registration["data"],
            STEP: str(registration["step"]),
            METRICS: json.dumps(registration["metrics"]),
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
        new = versions[number].metrics.get(metric, math.nan)
        old = holder.metrics.get(metric, math.nan)
        if math.isnan(old) and not math.isnan(new):
            return False, f"version {holder.number} has no {metric} to compare with"
        delta = registration["min_improvement"]
        better = is_better(metric, new, old, delta)
        comparison = "better" if better else "not better"
        reason = f"{metric} {new:.6g} is {comparison} than {old:.6g}"
        if delta:
            reason += f" by more than {delta:g}"
        return better, reason


def _outcome_key(registration: Registration) -> str:
    return f"{OUTCOME}.{registration['alias']}" if registration["alias"] else OUTCOME


def _version(item: "ModelVersion", aliases: dict[str, int]) -> Version:
    """A version from its tags, which anyone may have set."""
    try:
        metrics = parse_json(item.tags.get(METRICS, "{}"), dict[str, Number], METRICS)
    except DataError:
        metrics = {}
    number = int(item.version)
    return Version(
        number,
        created=int(item.creation_timestamp),
        run_id=item.run_id or "",
        data=printable(item.tags.get(DATA, "")),
        step=printable(item.tags.get(STEP, "")),
        metrics={printable(key): float(value) for key, value in metrics.items()},
        aliases=tuple(alias for alias, version in aliases.items() if version == number),
    )


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

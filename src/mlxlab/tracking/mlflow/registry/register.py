"""Registers the model that a journal asks for: the one that its own run has logged, and only if the run is ours."""

from typing import TYPE_CHECKING

from mlxlab.errors import DataError, NotAllowedError, UserError
from mlxlab.tracking.mlflow.errors import StoreUnavailableError, classify_error, one_line, printable
from mlxlab.tracking.mlflow.log_model import find_model, model_uri
from mlxlab.tracking.mlflow.registry.model_registry import ModelRegistry
from mlxlab.tracking.records import Registration

if TYPE_CHECKING:
    from mlflow import MlflowClient

FOREIGN = "the run was not started here; to trust it: runs sync RUN_FOLDER register=true"
REFUSALS = (
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "FEATURE_DISABLED",
    "ENDPOINT_NOT_FOUND",
    "NOT_IMPLEMENTED",
)


def register_model(
    client: "MlflowClient",
    uid: str,
    ids: tuple[str, str],
    registration: Registration,
    *,
    is_foreign: bool,
) -> str:
    """As `ModelRegistry.register`.

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
            if before := registry.outcome(ids[1], registration):
                return printable(before)
            raise NotAllowedError(f"{title}: {FOREIGN}")
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

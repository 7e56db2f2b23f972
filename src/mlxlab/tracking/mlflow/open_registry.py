"""Opens the model registry of a store, for reading or as the only writer of the store."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from mlxlab.errors import ServiceUnavailableError, UserError
from mlxlab.tracking.mlflow import queue
from mlxlab.tracking.mlflow.address import Address
from mlxlab.tracking.mlflow.client import MlflowStore
from mlxlab.tracking.mlflow.errors import one_line
from mlxlab.tracking.mlflow.registry import ModelRegistry


@contextmanager
def open_registry(address: Address, *, writes: bool = False) -> Iterator[ModelRegistry]:
    """The registry of an existing store.

    Args:
        writes: the syncer in the background stops meanwhile: one process at a time writes to a store.

    Raises:
        ServiceUnavailableError: there is no store, it cannot be used, or another process is writing it for too long.
    """
    if address.database is not None and not address.database.is_file():
        raise ServiceUnavailableError(f"{address.shown}: no store found; a run with tracking=mlflow creates it")
    with ExitStack() as stack:
        try:
            if writes:
                stack.enter_context(queue.only_writer(address))
            store = MlflowStore(address)
            stack.callback(store.close)
            yield ModelRegistry(store.client)
        except UserError:
            raise
        except Exception as error:  # of MLflow, of a database or of HTTP: it has no common base
            if isinstance(error, ArithmeticError | AttributeError | LookupError | TypeError):
                raise  # ours
            raise ServiceUnavailableError(f"{address.shown}: {one_line(error)}") from None

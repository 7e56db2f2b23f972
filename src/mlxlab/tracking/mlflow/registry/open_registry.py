"""Opens the model registry of a store, for reading or as the only writer of the store."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from mlxlab.errors import ServiceUnavailableError, UserError
from mlxlab.tracking.mlflow import queue
from mlxlab.tracking.mlflow.address import Address
from mlxlab.tracking.mlflow.client import MlflowStore
from mlxlab.tracking.mlflow.errors import one_line
from mlxlab.tracking.mlflow.registry.model_registry import ModelRegistry
from mlxlab.tracking.mlflow.registry.registry_reader import RegistryReader
from mlxlab.tracking.mlflow.registry.sqlite_registry import SqliteRegistry


@contextmanager
def read_registry(address: Address) -> Iterator[RegistryReader]:
    """The registry of an existing store; raises as `write_registry`."""
    _check_exists(address)
    if address.database is not None:
        yield SqliteRegistry(address.database)
    else:
        with _open(address, writes=False) as registry:
            yield registry


@contextmanager
def write_registry(address: Address) -> Iterator[ModelRegistry]:
    """The registry, to be changed. The syncer in the background stops meanwhile: one process at a time writes a store.

    Raises:
        ServiceUnavailableError: there is no store, it cannot be used, or another process is writing it for too long.
    """
    _check_exists(address)
    with _open(address, writes=True) as registry:
        yield registry


def _check_exists(address: Address) -> None:
    if address.database is not None and not address.database.is_file():
        raise ServiceUnavailableError(
            f"{address.shown}: no store found; a run with tracking=mlflow creates it"
        )


@contextmanager
def _open(address: Address, *, writes: bool) -> Iterator[ModelRegistry]:
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

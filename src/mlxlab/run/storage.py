"""The protocol of `cloud`, and addresses of copies such as `s3://bucket/prefix`."""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from mlxlab.config.instantiate import instantiate
from mlxlab.config.paths import conf_dir
from mlxlab.errors import ConfigError
from mlxlab.files.yaml_file import read_yaml
from mlxlab.terminal.redact import has_credentials, redact, why_refused

ADDRESS = re.compile(r"(s3|gs|az|file)://(.*)", re.DOTALL)
OPTIONS = {"s3": "s3", "gs": "gcs", "az": "azure", "file": "directory"}  # scheme -> cloud=...


class Storage(Protocol):
    """A place for copies of the checkpoints of runs."""

    def check(self) -> None:
        """Raises UserError if the place is required and cannot be read."""

    def copies(self, folder: Path, run: str, table: Path | None) -> AbstractContextManager[object]:
        """Copies each checkpoint of a run, with what a resume needs, for as long as the context lasts.

        Args:
            run: id of the run.
            table: the file of `callbacks.csv`, if there is one.
        """


class StoredRuns(Protocol):
    """A place that holds copies of runs."""

    def fetch(self, address: str, run_dir: str | None) -> Path:
        """The folder of the run whose newest checkpoint is in the place; fetched unless it is there.

        Args:
            address: of the place, for messages.
            run_dir: the folder that the user chose; None takes `outputs/<id of the run>`.

        Raises:
            InputNotFoundError: nothing is committed there, or several runs are.
            CheckpointUnavailableError: no checkpoint is intact.
            CannotCreateError: the folder holds something else, or cannot be written.
            UserError: the place cannot be read.
        """


class NoCloud:
    """Checkpoints stay in the run folder. Implements `Storage`."""

    def check(self) -> None:
        return

    def copies(self, folder: Path, run: str, table: Path | None) -> AbstractContextManager[None]:
        return nullcontext()


def open_address(address: str, options: Mapping[str, str | None]) -> StoredRuns:
    """The place that `s3://bucket/prefix`, `gs://`, `az://` or `file:///folder` names.

    Args:
        options: of `cloud`, such as the endpoint; those that the provider does not have are ignored.

    Raises:
        ConfigError: it is no such address, or no option of `cloud` opens it.
    """
    if has_credentials(address):
        raise ConfigError(f"{redact(address)}: {why_refused(address)}")
    matched = ADDRESS.fullmatch(address)
    if matched is None:
        raise ConfigError(f"{address}: expected s3://bucket/prefix, gs://, az:// or file:///folder")
    scheme = matched[1]
    place = matched[2].rstrip("/")
    file = conf_dir() / "cloud" / f"{OPTIONS[scheme]}.yaml"
    if not file.is_file():
        raise ConfigError(
            f"{address}: needs the option cloud={OPTIONS[scheme]}, which is not installed"
        )
    node = read_yaml(file).values
    known = {key: value for key, value in options.items() if key in node}
    if scheme != "file":
        bucket, _, prefix = place.partition("/")
        names = {"bucket": bucket, "prefix": prefix}
    elif place.startswith("/"):
        folder, _, prefix = unquote(place).rpartition("/")
        names = {"path": folder or "/", "prefix": prefix}
    else:
        raise ConfigError(f"{address}: expected file:///folder, with the full path of the folder")
    return instantiate(node | known | names)

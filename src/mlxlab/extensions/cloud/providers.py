"""Where checkpoints are copied to: the targets of `cloud`.

Credentials come from the environment only, by the names that each provider documents.
"""

import importlib.util
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

from mlxlab.errors import ConfigError, ServiceUnavailableError
from mlxlab.extensions.cloud.commits import Commits
from mlxlab.extensions.cloud.fetch import fetch_run
from mlxlab.extensions.cloud.object_store import (
    CloudStore,
    DirectoryStore,
    ObjectStore,
    is_safe_key,
    join,
)
from mlxlab.extensions.cloud.run_files import RunFiles
from mlxlab.extensions.cloud.upload import Uploads
from mlxlab.schema.constraints import NonNegative, Size
from mlxlab.terminal.program import install_command

ALLOW_HTTP = {"s3": "AWS_ALLOW_HTTP", "gs": "GOOGLE_ALLOW_HTTP", "az": "AZURE_ALLOW_HTTP"}
BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,221}")
ENDPOINT = re.compile(r"https?://[^\s@?#]+")


class UploadOptions(TypedDict):
    """The keys that every place has.

    Args:
        prefix: folder in it, in which every run has its own.
        required: a run fails if the store cannot be used at its start, or lacks its last checkpoint
            at its end.
        keep: number of the newest checkpoints that stay there; null keeps all. Each of them holds
            the best one too.
        read_back: read each file again after it was sent, and compare its checksum; false halves
            the traffic.
        wait: seconds without progress after which the end of a run no longer waits for an upload.
    """

    prefix: str
    required: bool
    keep: Size | None
    read_back: bool
    wait: NonNegative


@dataclass(frozen=True)
class Cloud:
    """A place for copies of checkpoints. Implements `Storage` and `StoredRuns`."""

    store: ObjectStore
    options: UploadOptions

    @property
    def prefix(self) -> str:
        return self.options["prefix"].strip("/")

    @property
    def address(self) -> str:
        return f"{self.store.address}/{self.prefix}".rstrip("/")

    def __post_init__(self) -> None:
        if self.prefix and not is_safe_key(self.prefix):
            expected = "expected names joined by slashes, such as runs/first"
            raise ConfigError(f"cloud.prefix={_shown(self.prefix)}: {expected}")

    def commits(self, run: str) -> Commits:
        """The commits of the run with this id."""
        root = join(self.prefix, run)
        return Commits(self.store, root, read_back=self.options["read_back"])

    def check(self) -> None:
        """Raises StorageError if the store is required and cannot be read."""
        if self.options["required"]:
            self.store.list(self.prefix)

    def copies(self, folder: Path, run: str, table: Path | None) -> Uploads:
        """Uploads the checkpoints of a run in the background, as long as the context lasts."""
        return Uploads(
            self.commits(run),
            RunFiles(folder, table),
            keep=self.options["keep"],
            wait=self.options["wait"],
            required=self.options["required"],
        )

    def fetch(self, address: str, run_dir: str | None) -> Path:
        return fetch_run(self.store, self.prefix, address, run_dir)


def directory(path: str, **options: Unpack[UploadOptions]) -> Cloud:
    """A folder, such as a network drive.

    Args:
        path: the folder.
    """
    return Cloud(DirectoryStore(Path(os.path.abspath(os.path.expanduser(path)))), options)


def s3(
    bucket: str, region: str | None, endpoint: str | None, **options: Unpack[UploadOptions]
) -> Cloud:
    """A bucket of S3, or of a service with its protocol.

    Credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or those of the machine.

    Args:
        bucket: its name.
        region: null takes AWS_REGION.
        endpoint: URL of another service than AWS; null takes AWS_ENDPOINT_URL.
    """
    endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL")
    return Cloud(_open_store("s3", bucket, endpoint, region=region, endpoint=endpoint), options)


def gcs(bucket: str, endpoint: str | None, **options: Unpack[UploadOptions]) -> Cloud:
    """A bucket of Google Cloud Storage.

    Credentials: GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT_KEY, or those of the
    machine.

    Args:
        bucket: its name.
        endpoint: URL of an emulator, which gets no credentials; null takes STORAGE_EMULATOR_HOST.
    """
    endpoint = endpoint or os.environ.get("STORAGE_EMULATOR_HOST")
    key = None
    if endpoint is not None:
        unsigned = dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
        key = json.dumps({"gcs_base_url": endpoint, "disable_oauth": True, **unsigned})
    return Cloud(_open_store("gs", bucket, endpoint, service_account_key=key), options)


def azure(
    bucket: str, account: str | None, endpoint: str | None, **options: Unpack[UploadOptions]
) -> Cloud:
    """A container of Azure Blob Storage.

    Credentials: AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, or those of the machine.

    Args:
        bucket: name of the container.
        account: name of the storage account; null takes AZURE_STORAGE_ACCOUNT_NAME.
        endpoint: URL of another service than Azure; null takes AZURE_STORAGE_ENDPOINT.
    """
    endpoint = endpoint or os.environ.get("AZURE_STORAGE_ENDPOINT")
    account = account or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
    if account is None:
        raise ConfigError("cloud.account: expected a name, or AZURE_STORAGE_ACCOUNT_NAME")
    store = _open_store("az", bucket, endpoint, account_name=account, endpoint=endpoint)
    return Cloud(store, options)


def _open_store(scheme: str, bucket: str, url: str | None, **options: str | None) -> ObjectStore:
    """A store that connects when it is first used."""
    if not BUCKET.fullmatch(bucket):
        expected = "expected 3 to 222 letters, digits, dots, dashes and underscores"
        raise ConfigError(f"cloud.bucket={_shown(bucket)}: {expected}")
    if url is not None and not ENDPOINT.fullmatch(url):
        raise ConfigError("cloud.endpoint: expected http(s)://host[:port], without credentials")
    if importlib.util.find_spec("obstore") is None:
        install = install_command("cloud")
        raise ServiceUnavailableError(f"{scheme}://{bucket}: needs obstore: {install}")
    allows_http = os.environ.get(ALLOW_HTTP[scheme], "").lower() == "true"  # obstore reads it too
    is_http = allows_http or (url or "").startswith("http://")
    chosen = {key: value for key, value in options.items() if value is not None}
    return CloudStore(scheme, bucket, chosen, allow_http=is_http)


def _shown(value: str) -> str:
    """A value for a message; `***` for what may be part of a URL with credentials."""
    return "***" if re.search(r"[:@?&=#]", value) else value[:60]

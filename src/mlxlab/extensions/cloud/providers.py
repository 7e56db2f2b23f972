"""Where checkpoints are copied to: the targets of `cloud`.

Credentials come from the environment only, by the names that each provider documents.
"""

import importlib.util
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from mlxlab.constraints import NonNegative, Size
from mlxlab.errors import ConfigError, ServiceUnavailableError
from mlxlab.extensions.cloud.commits import Commits
from mlxlab.extensions.cloud.directory import DirectoryStore
from mlxlab.extensions.cloud.fetch import fetch_run
from mlxlab.extensions.cloud.object_store import ObjectStore, is_safe_key, join
from mlxlab.extensions.cloud.run_files import RunFiles
from mlxlab.extensions.cloud.upload import Uploads
from mlxlab.program import install_command

if TYPE_CHECKING:
    from obstore.store import ObjectStore as ObstoreStore

KINDS = {"s3": "S3Store", "gs": "GCSStore", "az": "AzureStore"}  # classes of obstore
ALLOW_HTTP = {
    "s3": "AWS_ALLOW_HTTP",
    "gs": "GOOGLE_ALLOW_HTTP",
    "az": "AZURE_ALLOW_HTTP",
}  # read by obstore too

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,221}")


class UploadOptions(TypedDict):
    """The keys that every place has.

    Args:
        prefix: folder in it, in which every run has its own.
        required: a run fails if the store cannot be used at its start, or lacks its last checkpoint at its end.
        keep: number of the newest checkpoints that stay there; null keeps all. Each of them holds the best one too.
        read_back: read each file again after it was sent, and compare its checksum; false halves the traffic.
        wait: seconds without progress after which the end of a run no longer waits for an upload.
    """

    prefix: str
    required: bool
    keep: Size | None
    read_back: bool
    wait: NonNegative


@dataclass(frozen=True)
class Cloud:
    """A place for copies of checkpoints, and how they are kept there. Implements `Storage` and `StoredRuns`.

    The fields are as in `UploadOptions`.
    """

    store: ObjectStore
    prefix: str
    required: bool
    keep: Size | None
    read_back: bool
    wait: NonNegative

    @property
    def address(self) -> str:
        return f"{self.store.address}/{self.prefix}".rstrip("/")

    def commits(self, run: str) -> Commits:
        """Those of the run with an id."""
        return Commits(self.store, join(self.prefix, run), read_back=self.read_back)

    def check(self) -> None:
        """Raises StorageError if the store is required and cannot be read."""
        if self.required:
            self.store.list(self.prefix)

    def copies(self, folder: Path, run: str, table: Path | None) -> Uploads:
        """Uploads the checkpoints of a run in the background, for as long as the context lasts."""
        source = RunFiles(folder, table)
        return Uploads(
            self.commits(run), source, keep=self.keep, wait=self.wait, required=self.required
        )

    def fetch(self, address: str, run_dir: str | None) -> Path:
        return fetch_run(self.store, self.prefix, address, run_dir)


def directory(path: str, **options: Unpack[UploadOptions]) -> Cloud:
    """A folder, such as a network drive.

    Args:
        path: the folder.
    """
    return _cloud(DirectoryStore(Path(os.path.abspath(os.path.expanduser(path)))), options)


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
    return _cloud(
        _cloud_store("s3", bucket, endpoint, {"region": region, "endpoint": endpoint}), options
    )


def gcs(bucket: str, endpoint: str | None, **options: Unpack[UploadOptions]) -> Cloud:
    """A bucket of Google Cloud Storage.

    Credentials: GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT_KEY, or those of the machine.

    Args:
        bucket: its name.
        endpoint: URL of an emulator, which gets no credentials; null takes STORAGE_EMULATOR_HOST.
    """
    endpoint = endpoint or os.environ.get("STORAGE_EMULATOR_HOST")
    key = None
    if endpoint is not None:
        unsigned = {
            "disable_oauth": True,
            "client_email": "",
            "private_key": "",
            "private_key_id": "",
        }
        key = json.dumps({"gcs_base_url": endpoint, **unsigned})
    return _cloud(_cloud_store("gs", bucket, endpoint, {"service_account_key": key}), options)


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
        raise ConfigError(
            "cloud.account: expected the name of the storage account, or AZURE_STORAGE_ACCOUNT_NAME"
        )
    return _cloud(
        _cloud_store("az", bucket, endpoint, {"account_name": account, "endpoint": endpoint}),
        options,
    )


def _cloud(store: ObjectStore, options: UploadOptions) -> Cloud:
    prefix = options["prefix"].strip("/")
    if prefix and not is_safe_key(prefix):
        raise ConfigError(
            f"cloud.prefix={_shown(prefix)}: expected names joined by slashes, such as runs/first"
        )
    return Cloud(
        store, prefix, options["required"], options["keep"], options["read_back"], options["wait"]
    )


def _cloud_store(
    scheme: str, bucket: str, endpoint: str | None, options: dict[str, str | None]
) -> ObjectStore:
    if not _BUCKET.fullmatch(bucket):
        raise ConfigError(
            f"cloud.bucket={_shown(bucket)}: expected the name of a bucket: 3 to 222 letters, digits, dots, dashes and "
            "underscores, the first a letter or digit"
        )
    if endpoint is not None and not re.fullmatch(r"https?://[^\s@?#]+", endpoint):
        raise ConfigError("cloud.endpoint: expected http(s)://host[:port], without credentials")
    if importlib.util.find_spec("obstore") is None:
        raise ServiceUnavailableError(
            f"{scheme}://{bucket}: needs obstore: {install_command('cloud')}"
        )
    from mlxlab.extensions.cloud.cloud_store import CloudStore

    allow_http = (endpoint or "").startswith("http://") or os.environ.get(
        ALLOW_HTTP[scheme], ""
    ).lower() == "true"
    return CloudStore(
        f"{scheme}://{bucket}",
        partial(_open, KINDS[scheme], bucket, options, allow_http=allow_http),
    )


def _shown(value: str) -> str:
    """A value for a message; `***` for what may be part of a URL with credentials."""
    return "***" if re.search(r"[:@?&=#]", value) else value[:60]


def _open(
    kind: str, bucket: str, options: dict[str, str | None], *, allow_http: bool
) -> "ObstoreStore":
    from obstore import store

    from mlxlab.extensions.cloud.cloud_store import CLIENT, RETRY

    call: Callable[..., ObstoreStore] = getattr(store, kind)
    chosen = {key: value for key, value in options.items() if value is not None}
    client = CLIENT | ({"allow_http": True} if allow_http else {})
    return call(bucket, client_options=client, retry_config=RETRY, **chosen)

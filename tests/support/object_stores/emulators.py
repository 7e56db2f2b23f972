"""Object stores on loopback: S3 (moto), Azure (azurite, where it is installed) and Google Cloud Storage (ours)."""

import base64
import hashlib
import hmac
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.error import URLError
from urllib.parse import unquote, urlencode

import pytest

from support.object_stores.fault_proxy import FaultProxy
from support.object_stores.gcs_server import GcsServer

BUCKET = "mlxlab-tests"
SECRET = "planted0secret0key0that0nobody0may0write0down"  # accepted by moto, whatever it is
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # published
NO_AZURITE = "azurite-blob is not on the PATH: npm install azurite"


@dataclass(frozen=True)
class Emulator:
    """An emulated service with an empty bucket, behind a proxy that fails on demand.

    Attributes:
        provider: as in `cloud=`.
        address: of the bucket, as in `resume=`.
        environment: credentials and endpoint.
        secrets: what of the environment must not be written anywhere.
    """

    provider: str
    address: str
    proxy: FaultProxy
    environment: dict[str, str]
    secrets: tuple[str, ...]
    gcs: GcsServer | None = field(default=None)

    def with_other_credentials(self) -> "Emulator":
        """With a token in the URL for Azure, and a signed request for each access to Google Cloud Storage."""
        if self.provider == "azure":
            token = sas_token()
            environment = {**self.environment, "AZURE_STORAGE_SAS_TOKEN": token}
            del environment["AZURE_STORAGE_ACCOUNT_KEY"]
            signature = token.split("sig=")[1]
            secrets = (token, signature, unquote(signature))
            return replace(self, environment=environment, secrets=secrets)
        assert self.provider == "gcs"
        key = private_key()
        account = {
            "client_email": "tests@example.com",
            "private_key": key,
            "private_key_id": "planted0key0id",
        }
        text = json.dumps({"type": "service_account", "gcs_base_url": self.proxy.url, **account})
        environment = {"GOOGLE_SERVICE_ACCOUNT_KEY": text, "GOOGLE_ALLOW_HTTP": "true"}
        return replace(
            self, environment=environment, secrets=(text, "planted0key0id", *key.splitlines()[1:-1])
        )

    def overrides(self, prefix: str = "") -> list[str]:
        """Of a run that uploads to it."""
        return [f"cloud={self.provider}", f"cloud.bucket={BUCKET}", f"cloud.prefix={prefix}"]


@contextmanager
def emulator(provider: str, bucket: str = BUCKET) -> Iterator[Emulator]:
    """The emulator of a provider, with a bucket; skips the test where it is not installed."""
    with {"s3": _s3, "gcs": _gcs, "azure": _azure}[provider](bucket) as running:
        yield running


@contextmanager
def _gcs(bucket: str) -> Iterator[Emulator]:
    with closing(GcsServer(bucket)) as server, closing(FaultProxy(server.url)) as proxy:
        environment = {"STORAGE_EMULATOR_HOST": proxy.url}
        yield Emulator("gcs", f"gs://{bucket}", proxy, environment, (), server)


@contextmanager
def _s3(bucket: str) -> Iterator[Emulator]:
    pytest.importorskip("moto.server", reason="moto[server] is not installed")
    port = _free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    url = f"http://127.0.0.1:{port}"
    with _process(command, url), closing(FaultProxy(url)) as proxy:
        _put(f"{url}/{bucket}")
        credentials = {
            "AWS_ACCESS_KEY_ID": "PLANTEDACCESSKEYID42",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_SESSION_TOKEN": f"session-{SECRET}",
        }
        environment = credentials | {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": proxy.url}
        yield Emulator("s3", f"s3://{bucket}", proxy, environment, tuple(credentials.values()))


@contextmanager
def _azure(bucket: str) -> Iterator[Emulator]:
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip(NO_AZURITE)
    port = _free_port()
    options = ["--inMemoryPersistence", "--skipApiVersionCheck", "--loose", "--silent"]
    url = f"http://127.0.0.1:{port}"
    with _process([program, "--blobHost", "127.0.0.1", "--blobPort", str(port), *options], url):
        _put(f"{url}/{AZURE_ACCOUNT}/{bucket}?restype=container&{sas_token()}")
        with closing(FaultProxy(f"{url}/{AZURE_ACCOUNT}")) as proxy:
            environment = {
                "AZURE_STORAGE_ACCOUNT_NAME": AZURE_ACCOUNT,
                "AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY,
                "AZURE_STORAGE_ENDPOINT": proxy.url,
            }
            yield Emulator("azure", f"az://{bucket}", proxy, environment, (AZURE_KEY,))


def private_key() -> str:
    """A new RSA key as PEM."""
    rsa = pytest.importorskip(
        "cryptography.hazmat.primitives.asymmetric.rsa", reason="cryptography is not installed"
    )
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


def sas_token() -> str:
    """A signed query that allows everything for an hour."""
    end = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    fields = {"sp": "rwdlac", "ss": "b", "srt": "sco", "st": "", "se": end}
    fields |= {"sip": "", "spr": "", "sv": "2018-11-09"}
    text = "\n".join([AZURE_ACCOUNT, *fields.values(), ""])
    signature = hmac.new(base64.b64decode(AZURE_KEY), text.encode(), hashlib.sha256).digest()
    signed = fields | {"sig": base64.b64encode(signature).decode()}
    return urlencode({name: value for name, value in signed.items() if value})


@contextmanager
def _process(command: list[str], url: str) -> Iterator[None]:
    """A server in a process of its own, from when it answers; it also ends when this process is killed."""
    guard = [sys.executable, "-S", str(Path(__file__).with_name("guard.py")), *command]
    process = subprocess.Popen(
        guard, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 60
        while not _answers(url):
            assert process.poll() is None, f"{command[0]} ended with code {process.returncode}"
            assert time.monotonic() < until, f"{command[0]} does not answer"
            time.sleep(0.05)
        yield
    finally:
        process.communicate()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except URLError as error:
        return not isinstance(error.reason, OSError)  # an answer with an error status will do
    except OSError:
        return False
    return True


def _put(url: str) -> None:
    urllib.request.urlopen(urllib.request.Request(url, data=b"", method="PUT"), timeout=30).close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""The emulators of object stores that other tests use behave as the services do, and the proxy fails as it is told."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from support.object_stores import guard
from support.object_stores.emulators import AZURE_ACCOUNT, BUCKET, Emulator, emulator, sas_token
from support.object_stores.fault_proxy import FAULTS

obstore = pytest.importorskip(
    "obstore", reason="obstore is not installed: pip install 'mlxlab[cloud]'"
)
stores = pytest.importorskip("obstore.store", reason="obstore is not installed")

SLOW = [pytest.param(name, marks=pytest.mark.fault_injection) for name in ("s3", "azure")]
FAST_RETRY = {
    "max_retries": 8,
    "retry_timeout": timedelta(seconds=20),
    "backoff": {
        "init_backoff": timedelta(milliseconds=1),
        "max_backoff": timedelta(milliseconds=20),
        "base": 2,
    },
}


@pytest.fixture(scope="module", params=["gcs", *SLOW])
def service(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    with emulator(request.param) as running:
        yield running


def store_of(service: Emulator, **options: object):
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("AWS_", "AZURE_", "GOOGLE_")):
                patch.delenv(name)
        for name, value in service.environment.items():
            patch.setenv(name, value)
        client = {"client_options": {"allow_http": True}, "retry_config": FAST_RETRY}
        if service.provider == "s3":
            return stores.S3Store(BUCKET, virtual_hosted_style_request=False, **client, **options)
        if service.provider == "azure":
            endpoint = service.environment["AZURE_STORAGE_ENDPOINT"]
            return stores.AzureStore(BUCKET, endpoint=endpoint, **client, **options)
        unsigned = {
            "disable_oauth": True,
            "client_email": "",
            "private_key": "",
            "private_key_id": "",
        }
        key = json.dumps({"gcs_base_url": service.proxy.url, **unsigned})
        return stores.GCSStore(BUCKET, service_account_key=key, **client)


@pytest.mark.parametrize("fault", sorted(set(FAULTS) - {"expired"}))
def test_a_client_that_retries_survives_each_fault(service, fault):
    store = store_of(service)
    service.proxy.requests.clear()
    due = {"PUT": fault, "GET": fault}
    service.proxy.choose = lambda method, path: due.pop(method, "")
    obstore.put(store, "object", b"x" * 5000)
    assert bytes(obstore.get(store, "object").bytes()) == b"x" * 5000
    service.proxy.heal()
    assert service.proxy.counts[fault] == 2


PARENT = """
import subprocess, sys
server = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
subprocess.Popen([sys.executable, "-S", sys.argv[1], sys.executable, "-S", "-c", server], stdin=subprocess.PIPE).wait()
"""


def test_an_emulator_ends_when_the_process_that_started_it_is_killed():
    command = [sys.executable, "-S", "-c", PARENT, str(Path(guard.__file__))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        server = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        server.wait(20)


@pytest.mark.fault_injection
def test_azurite_itself_refuses_a_token_that_has_expired():
    with emulator("azure") as service:
        client = {"client_options": {"allow_http": True}, "retry_config": FAST_RETRY}
        place = {
            "account_name": AZURE_ACCOUNT,
            "endpoint": service.environment["AZURE_STORAGE_ENDPOINT"],
        }
        valid, expired = (
            stores.AzureStore(BUCKET, sas_key=sas_token(hours), **place, **client)
            for hours in (1, -1)
        )
        obstore.put(valid, "object", b"")
        with pytest.raises(Exception, match=r"403|denied|Authentication"):
            obstore.put(expired, "object", b"")

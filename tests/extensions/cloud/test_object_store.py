"""Object stores of the three providers over real connections: faults are survived, and errors hold no secrets."""

import json
import os
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import pytest

from mlxlab.errors import UserError
from mlxlab.extensions.cloud import object_store
from mlxlab.extensions.cloud.commits import Commits
from mlxlab.extensions.cloud.object_store import DirectoryStore, ObjectStore, StorageError
from mlxlab.extensions.cloud.run_files import Snapshots
from mlxlab.run.storage import open_address
from support.object_stores.emulators import Emulator, emulator, sas_token
from support.object_stores.fault_proxy import FAULTS, FaultProxy

pytest.importorskip("obstore", reason="obstore is not installed: pip install 'mlxlab[cloud]'")

SLOW = pytest.mark.fault_injection
SECRET = "planted0secret0that0nobody0may0write0down"
KEY = "cGxhbnRlZC1zZWNyZXQtb2YtYW4tYWNjb3VudA=="
SIGNATURE = sas_token().split("sig=")[1]
AWS = {"AWS_ACCESS_KEY_ID": "PLANTEDKEYID", "AWS_SECRET_ACCESS_KEY": SECRET}
ACCOUNT = {"AZURE_STORAGE_ACCOUNT_NAME": "account"}
CREDENTIALS = {
    "s3://bucket": {**AWS, "AWS_SESSION_TOKEN": SECRET},
    "az://bucket": {**ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": KEY},
    "az://signed": {**ACCOUNT, "AZURE_STORAGE_SAS_TOKEN": sas_token()},
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials of the machine, and short pauses between attempts."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_")):
            monkeypatch.delenv(name)
    first, last = timedelta(milliseconds=1), timedelta(milliseconds=20)
    backoff = {"init_backoff": first, "max_backoff": last, "base": 2}
    monkeypatch.setattr(object_store, "RETRY", object_store.RETRY | {"backoff": backoff})


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    """In front of nothing."""
    with closing(FaultProxy("http://127.0.0.1:9")) as proxy:
        yield proxy


@pytest.fixture
def service() -> Iterator[Emulator]:
    with emulator("gcs") as service:
        yield service


def open_store(service: Emulator) -> ObjectStore:
    return open_address(service.address, {"endpoint": service.proxy.url}).store


SLOW_FAULTS = [pytest.param(each, marks=SLOW) for each in ("503", "lost", "unreachable")]


@pytest.mark.parametrize("fault", ["expired", *SLOW_FAULTS])
@pytest.mark.parametrize("address", CREDENTIALS)
def test_errors_hold_no_secrets_though_the_answers_do(proxy, monkeypatch, address, fault):
    for name, value in CREDENTIALS[address].items():
        monkeypatch.setenv(name, value)
    proxy.fail_all(fault)
    endpoint = "http://127.0.0.1:9" if fault == "unreachable" else proxy.url
    store = open_address(address, {"endpoint": endpoint, "region": "us-east-1"}).store
    requests = [
        lambda: store.put("key", [b"data"]),
        lambda: store.put("key", [b"data" * 2**21, b"more"]),
        lambda: list(store.get("key")),
        lambda: store.list("folder"),
        lambda: store.delete(["key"]),
    ]
    for request in requests:
        with pytest.raises(StorageError) as failure:
            request()
        message = str(failure.value)
        assert message.startswith(f"{address}/")
        assert "\n" not in message
        assert failure.value.__cause__ is None
        assert failure.value.__suppress_context__
        secrets = {*CREDENTIALS[address].values(), SIGNATURE, "sig="} - {"account"}
        assert not [secret for secret in secrets if secret in message], message
    assert fault != "expired" or "permission denied" in message or "403" in message


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [
        (f"s3://PLANTEDKEYID:{SECRET}@bucket/runs", None),
        (f"az://account/bucket?sig={SECRET}", None),
        (f"gs://bucket?key={SECRET}", None),
        (f"gs://bucket/runs:{SECRET}", None),
        (f"https://account.blob.core.windows.net/bucket?sig={SECRET}", None),
        ("s3://bucket/runs", f"ftp://{SECRET}"),
        ("s3://bucket/runs", f"http://user:{SECRET}@127.0.0.1"),
        ("s3://bucket/runs", f"http://127.0.0.1/?sig={SECRET}"),
    ],
)
def test_an_address_with_a_secret_is_refused_without_repeating_it(monkeypatch, address, endpoint):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    with pytest.raises(UserError) as refusal:
        open_address(address, {"endpoint": endpoint, "region": None})
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize(
    "key", [SECRET, json.dumps({"private_key": SECRET}), json.dumps({"client_email": SECRET})]
)
def test_a_service_account_that_cannot_be_read_is_not_repeated(monkeypatch, key):
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", key)
    with pytest.raises(StorageError, match=r"gs://bucket.*: no usable credentials") as failure:
        open_address("gs://bucket", {}).store.list("runs")
    assert SECRET not in str(failure.value)


@pytest.mark.parametrize("fault", sorted(set(FAULTS) - {"expired"}))
def test_an_object_is_stored_and_read_in_spite_of_each_fault(service, fault):
    store, due = open_store(service), {"PUT": fault, "GET": fault}
    service.proxy.choose = lambda method, path: due.pop(method, "")
    store.put("object", [b"x" * 5000])
    assert b"".join(store.get("object")) == b"x" * 5000
    assert service.proxy.counts[fault] == 2


def test_a_listing_in_pages_has_every_object(service):
    service.gcs.objects.update({f"many/{number:03d}": b"" for number in range(250)})
    assert len(open_store(service).list("many").sizes) == 250


def test_a_listing_whose_answer_is_cut_is_repeated(service):
    store = open_store(service)
    store.put("folder/key", [b"data"])
    faults = ["half", "half"]
    service.proxy.choose = lambda method, path: faults.pop() if faults else ""
    assert store.list("folder").sizes == {"folder/key": 4}
    service.proxy.fail_all("half")
    with pytest.raises(StorageError, match=r"/folder: the connection was cut"):
        store.list("folder")


def test_commits_are_whole_or_invisible_though_a_third_of_the_requests_fail(service, tmp_path):
    (tmp_path / "small").write_bytes(b"small")
    (tmp_path / "large").write_bytes(os.urandom(2**20))
    files = {name: Snapshots().take(tmp_path / name, held=False) for name in ("small", "large")}
    faults = ["503", "500", "lost", "unanswered", "half"]
    service.proxy.fail_share(0.3, faults, seed=4)
    store, failures = open_store(service), 0
    for number in range(4):
        try:
            Commits(store, "runs/one").commit(f"step-{number}", files)
        except StorageError:
            failures += 1
    assert len(service.proxy.counts) > 3
    assert failures < 4
    service.proxy.heal()
    commits = Commits(store, "runs/one")
    for name in commits.names():
        commits.fetch(name, tmp_path / name)
        for path in files:
            assert (tmp_path / name / path).read_bytes() == (tmp_path / path).read_bytes()
    assert len(commits.names()) >= 4 - failures


@pytest.mark.parametrize("name", ["backup dir", "50%25", "a#b?c", "e\u0301t\u00e9"])
def test_the_printed_address_of_a_folder_can_be_typed(tmp_path, name):
    store = DirectoryStore(tmp_path / name)
    store.put("checkpoints/run/key", [b"data"])
    cloud = open_address(f"{store.address}/checkpoints/run", {})
    assert cloud.store.list(cloud.prefix).sizes == {"run/key": 4}
    assert cloud.address == f"{store.address}/checkpoints/run"

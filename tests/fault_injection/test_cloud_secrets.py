"""Credentials of object stores are in the environment only: no file and no output of a run has them."""

import re
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

import pytest

from support.object_stores.services import service_fixture, shared_service_fixture  # noqa: F401
from support.processes import run, tiny_overrides

pytest.importorskip("obstore", reason="obstore is not installed: pip install 'mlxlab[cloud]'")

pytestmark = pytest.mark.fault_injection

SHORT = (
    "trainer.max_steps=8",
    "trainer.eval_every=4",
    "checkpointing.every_steps=2",
    "cloud.wait=2",
)
SIGNING = {"AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_ACCOUNT_KEY", "GOOGLE_SERVICE_ACCOUNT_KEY"}
COMMIT = r"/step-\d+\.json"


@pytest.mark.parametrize("fault", ["expired", "500", "lost"])
@pytest.mark.parametrize("credentials", ["usual", "other"])
def test_no_secret_is_written_anywhere(
    shared_service, service, monkeypatch, tmp_path, credentials, fault
):
    if credentials == "other":
        if service.provider == "s3":
            pytest.skip("S3 has only one kind")
        service = service.with_other_credentials()
        for name in shared_service.environment:
            monkeypatch.delenv(name)
        for name, value in service.environment.items():
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    uris = [
        f"tracking.uri=sqlite:///{tmp_path}/mlflow.db",
        f"tracking.artifacts={tmp_path}/artifacts",
    ]
    tracked = ["tracking=mlflow", "tracking.wait=60", *uris]
    prefix, folders = (
        tmp_path.name,
        [f"hydra.run.dir={tmp_path}/{name}" for name in ("run", "empty")],
    )
    service.proxy.fail_after(COMMIT, fault)
    overrides = tiny_overrides(
        *SHORT, *tracked, *service.overrides(prefix), folders[0], "hydra.verbose=true"
    )
    done = run(*overrides, fresh=True)
    assert done.returncode == 0, done.stderr
    assert any(re.search(COMMIT, unquote(request.path)) for request in service.proxy.requests)
    service.proxy.fail_all("expired")
    refused = run(f"resume={service.address}/{prefix}", folders[1], fresh=True)
    assert refused.returncode == 69, refused.stderr
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as store:
        assert store.execute("SELECT status FROM runs").fetchall() == [("FINISHED",)]
    assert bool(service.proxy.signatures) == bool(SIGNING & {*service.environment})
    assert_absent({*service.secrets, *service.proxy.signatures}, tmp_path, done, refused)


def assert_absent(secrets: set[str], folder: Path, *outputs: subprocess.CompletedProcess) -> None:
    files = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(files) > 5
    files |= {
        f"output {n}": f"{each.stdout}{each.stderr}".encode() for n, each in enumerate(outputs)
    }
    for name, data in files.items():
        assert not [secret for secret in secrets if secret.encode() in data], name

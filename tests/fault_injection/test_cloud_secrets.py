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

SHORT = "trainer.max_steps=8", "trainer.eval_every=4", "checkpointing.every_steps=2"
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
    tracked = ["tracking=mlflow", "tracking.wait=60", f"tracking.artifacts={tmp_path}/artifacts"]
    tracked.append(f"tracking.uri=sqlite:///{tmp_path}/mlflow.db")
    prefix = tmp_path.name
    uploading = [*service.overrides(prefix), f"hydra.run.dir={tmp_path}/run", "cloud.wait=2"]
    service.proxy.fail_after(COMMIT, fault)
    done = run(*tiny_overrides(*SHORT, *tracked, *uploading, "hydra.verbose=true"), fresh=True)
    assert done.returncode == 0, done.stderr
    assert any(re.search(COMMIT, unquote(request.path)) for request in service.proxy.requests)
    service.proxy.fail_all("expired")
    empty = f"hydra.run.dir={tmp_path}/empty"
    refused = run(f"resume={service.address}/{prefix}", empty, fresh=True)
    assert refused.returncode == 69, refused.stderr
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as store:
        assert store.execute("SELECT status FROM runs").fetchall() == [("FINISHED",)]
    assert bool(service.proxy.signatures) == bool(SIGNING & {*service.environment})
    assert_absent({*service.secrets, *service.proxy.signatures}, tmp_path, done, refused)


def assert_absent(secrets: set[str], folder: Path, *outputs: subprocess.CompletedProcess) -> None:
    files = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(files) > 5
    for each in outputs:
        files[f"output of {each.args}"] = f"{each.stdout}{each.stderr}".encode()
    for name, data in files.items():
        assert not [secret for secret in secrets if secret.encode() in data], name

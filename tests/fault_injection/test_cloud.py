"""Runs that copy their checkpoints to an object store, and what is left when the store or the run fails."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlxlab.checkpoint.store import load_checkpoint
from mlxlab.storage.providers import Cloud, open_address
from support.fault_injection.disks import fill, needs_root, remount, small_disk
from support.object_stores.emulators import Emulator, emulator
from support.processes import final_state, run, start, tiny_overrides

pytest.importorskip("obstore", reason="obstore is not installed: pip install 'mlxlab[cloud]'")

pytestmark = pytest.mark.fault_injection

TINY = tiny_overrides("trainer.max_steps=24", "trainer.eval_every=8", "checkpointing.every_steps=4", "seed=5")
COMMIT = r"PUT .*/step-\d+\.json"
NAMED = re.compile(r"step-\d{8}[^\s,]* not uploaded|step-\d{8}, .* not uploaded")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The final state of the run that nobody disturbs."""
    return final_state(run(*TINY, f"hydra.run.dir={tmp_path_factory.mktemp('undisturbed')}/run"))


@pytest.fixture(scope="module", params=["gcs", "s3", "azure"])
def shared_service(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    with emulator(request.param) as running:
        yield running


@pytest.fixture
def service(shared_service: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Sound at the beginning and at the end of a test."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_")):
            monkeypatch.delenv(name)
    for name, value in shared_service.environment.items():
        monkeypatch.setenv(name, value)
    shared_service.proxy.requests.clear()
    yield shared_service
    shared_service.proxy.heal()


def upload(service: Emulator, prefix: str, folder: Path, *more: str) -> list[str]:
    """The command line of a run that uploads."""
    changed = {override.split("=")[0] for override in more}
    kept = [setting for setting in TINY if setting.split("=")[0] not in changed]
    return [*kept, *service.overrides(prefix), f"hydra.run.dir={folder}", *more]


def verified(address: str, folder: Path) -> list[str]:
    """Names of the checkpoints that a reader sees there; each is fetched, verified and loaded."""
    cloud: Cloud = open_address(address, {})
    names = []
    for run_key in cloud.store.list(cloud.prefix).folders:
        commits = cloud.commits(run_key.rpartition("/")[2])
        for name in commits.names():
            commits.fetch(name, folder / name)
            assert load_checkpoint(folder / name / "checkpoints" / name).step == int(name.split("-")[1])
            names.append(name)
    return names


@pytest.mark.parametrize(
    "request_killed",
    [
        pytest.param(COMMIT, id="manifest"),
        pytest.param("PUT .*/files/", id="file"),
        pytest.param("GET .*/files/", id="read_back"),
    ],
)
def test_a_run_killed_in_an_upload_resumes_bitwise_from_the_store_alone(service, expected, tmp_path, request_killed):
    prefix, folder = tmp_path.name, tmp_path / "run"
    pause = service.proxy.pause_at(1, request_killed, after=COMMIT)
    process = start(*upload(service, prefix, folder))
    assert pause.reached.wait(60), process.communicate()
    process.kill()
    process.communicate()
    pause.over.set()
    service.proxy.heal()
    shutil.rmtree(folder)
    seen = verified(f"{service.address}/{prefix}", tmp_path / "fetched")
    assert seen
    resumed = run(*TINY, f"hydra.run.dir={tmp_path}/empty", f"resume={service.address}/{prefix}")
    assert resumed.returncode == 0, resumed.stderr
    assert f"resumed from {seen[-1]}" in resumed.stderr
    assert final_state(resumed) == expected


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_visible_checkpoint_verifies_though_a_third_of_the_requests_fail(service, expected, tmp_path, seed):
    faults = ["503", "500", "lost", "unanswered", "half"]
    service.proxy.fail_share(0.3, faults, seed)
    done = run(*upload(service, tmp_path.name, tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert final_state(done) == expected
    counts = service.proxy.counts
    assert all(counts[fault] for fault in faults), counts
    service.proxy.heal()
    seen = verified(f"{service.address}/{tmp_path.name}", tmp_path / "fetched")
    assert "step-00000024" in seen or NAMED.search(done.stderr), done.stderr


@pytest.mark.parametrize("after", [30, 0])
def test_expired_credentials_leave_pending_uploads_which_the_next_run_sends(service, expected, tmp_path, after):
    command = upload(service, tmp_path.name, tmp_path / "run", "cloud.wait=2")
    service.proxy.fail_all("expired", after)
    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert final_state(done) == expected
    assert NAMED.search(done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    service.proxy.heal()
    address = f"{service.address}/{tmp_path.name}"
    assert "step-00000024" not in verified(address, tmp_path / "before")
    again = run(*command, "resume=auto")
    assert again.returncode == 0, again.stderr
    assert "step-00000024" in verified(address, tmp_path / "after")


@pytest.mark.parametrize("after", [0, 30])
def test_a_required_store_that_fails_fails_the_run(service, tmp_path, after):
    service.proxy.fail_all("expired", after)
    done = run(*upload(service, tmp_path.name, tmp_path / "run", "cloud.wait=2", "cloud.required=true"))
    assert done.returncode == (74 if after else 69), done.stderr
    assert "Traceback" not in done.stderr
    if after:
        assert load_checkpoint(tmp_path / "run" / "checkpoints" / "step-00000024").step == 24


@pytest.mark.parametrize("fault", ["lost", "503", "500", "unanswered", "half"])
def test_a_store_that_never_answers_does_not_keep_a_run_from_its_end(service, expected, tmp_path, fault):
    service.proxy.fail_all(fault)
    done = run(*upload(service, tmp_path.name, tmp_path / "run", "cloud.wait=2"))
    assert done.returncode == 0, done.stderr
    assert final_state(done) == expected
    assert NAMED.search(done.stderr), done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("cloud: ")]) == 2, done.stderr


@pytest.mark.parametrize("fault", ["", "expired", "500", "lost"])
def test_no_secret_is_written_anywhere(shared_service, service, tmp_path, fault):
    project = tmp_path / "project"
    tracked = [f"tracking.uri=sqlite:///{project}/mlflow.db", f"tracking.artifacts={project}/artifacts"]
    service.proxy.fail_all(fault, 20)
    command = upload(service, tmp_path.name, tmp_path / "run", "cloud.wait=2", "tracking=mlflow", *tracked)
    done = run(*command, "hydra.verbose=true")
    assert done.returncode == 0, done.stderr
    service.proxy.fail_all("expired")
    refused = run(*TINY, f"hydra.run.dir={tmp_path}/empty", f"resume={service.address}/{tmp_path.name}")
    assert refused.returncode == 69, refused.stderr
    assert_absent(service.secrets, tmp_path, done, refused)


def assert_absent(secrets: tuple[str, ...], folder: Path, *outputs: subprocess.CompletedProcess) -> None:
    files = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(files) > 5
    files |= {f"output {n}": f"{each.stdout}{each.stderr}".encode() for n, each in enumerate(outputs)}
    for name, data in files.items():
        assert not [secret for secret in secrets if secret.encode() in data], name


def test_remote_content_that_is_hostile_is_refused_before_anything_is_made(service, tmp_path):
    if service.gcs is None:
        pytest.skip("only our own emulator holds what no client would store")
    entry = {"size": 3, "sha256": "0" * 64}
    manifest = {"format": 1, "name": "step-00000004", "files": {"../../evil": entry}, "checksum": "0" * 64}
    objects = {
        "hostile/run/step-00000004.json": json.dumps(manifest).encode(),
        "hostile/../../evil": b"evil",
        "hostile/run/../evil.json": b"{}",
        "hostile/run//.json": b"{}",
        "hostile/run/step-00000099.json": b"{" * 100_000,
        "hostile/\x1b[31mred.json": b"",
    }
    service.gcs.objects.update(objects)
    done = run(*TINY, f"hydra.run.dir={tmp_path}/empty", f"resume={service.address}/hostile")
    assert done.returncode in (65, 66, 69), done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name]
    assert not list((tmp_path / "empty").glob("checkpoints/*"))


def directory(folder: Path, *more: str) -> list[str]:
    return [*TINY, "cloud=directory", f"cloud.path={folder}/copies", "cloud.wait=1", *more]


@needs_root
@pytest.mark.parametrize("state", ["full", "read-only"])
def test_a_directory_that_cannot_be_written_costs_copies_and_nothing_else(expected, tmp_path, state):
    with small_disk(tmp_path / "disk", "2m") as disk:
        if state == "full":
            fill(disk)
        else:
            remount(disk, "ro")
        done = run(*directory(disk, f"hydra.run.dir={tmp_path}/run"))
        assert done.returncode == 0, done.stderr
        assert final_state(done) == expected
        assert NAMED.search(done.stderr), done.stderr
        assert "Traceback" not in done.stderr
        if state == "full":
            (disk / "ballast").unlink()
        else:
            remount(disk, "rw")
        assert not [path for path in disk.rglob("*") if path.name.startswith(".tmp-")]
        again = run(*directory(disk, f"hydra.run.dir={tmp_path}/run", "resume=auto"))
        assert "not uploaded" not in again.stderr
        assert "step-00000024" in verified(f"file://{disk}/copies/checkpoints", tmp_path / "fetched")

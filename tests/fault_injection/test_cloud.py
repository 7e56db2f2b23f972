"""Runs that copy their checkpoints to an object store, and what is left when the store or the run fails."""

import re
import shutil
from pathlib import Path

import pytest

from mlxlab.checkpoint.store import load_checkpoint
from mlxlab.extensions.cloud.providers import Cloud
from mlxlab.run.storage import open_address
from support.fault_injection.disks import fill, needs_root, remount, small_disk
from support.object_stores.emulators import Emulator
from support.object_stores.services import service_fixture, shared_service_fixture  # noqa: F401
from support.processes import final_state, run, start, tiny_overrides

pytest.importorskip("obstore", reason="obstore is not installed: pip install 'mlxlab[cloud]'")

pytestmark = pytest.mark.fault_injection

TINY = tiny_overrides(
    "trainer.max_steps=24", "trainer.eval_every=8", "checkpointing.every_steps=4", "seed=5"
)
COMMIT = r"PUT .*/step-\d+\.json"
NAMED = re.compile(r"step-\d{8}[^\s,]* not uploaded|step-\d{8}, .* not uploaded")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The final state of the run that nobody disturbs."""
    return final_state(run(*TINY, f"hydra.run.dir={tmp_path_factory.mktemp('undisturbed')}/run"))


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
            step = load_checkpoint(folder / name / "checkpoints" / name).step
            assert step == int(name.split("-")[1])
            names.append(name)
    return names


def assert_resumed_from_the_store_alone(
    service: Emulator, tmp_path: Path, overrides: list[str], expected: str, oldest: bool = False
) -> list[str]:
    """Every visible checkpoint verifies, and a run on an empty disk ends in the expected state; returns their names."""
    address, faults = f"{service.address}/{tmp_path.name}", service.proxy.choose
    service.proxy.heal()
    seen = sorted(verified(address, tmp_path / "fetched"))
    if oldest:  # the newest may be that of the last step
        address += f"/{run_key(service, tmp_path.name)}/{seen[0]}"
    service.proxy.choose = faults
    resumed = run(*overrides, f"hydra.run.dir={tmp_path}/empty", f"resume={address}")
    assert resumed.returncode == 0, resumed.stderr
    assert f"resumed from {seen[0 if oldest else -1]}" in resumed.stderr
    assert final_state(resumed) == expected
    return seen


def run_key(service: Emulator, prefix: str) -> str:
    (key,) = open_address(f"{service.address}/{prefix}", {}).store.list(prefix).folders
    return key.rpartition("/")[2]


def kill_in(service: Emulator, command: list[str], request: str) -> None:
    """Starts a run that is killed while it sends a request, after its first commit; nothing else of it arrives."""
    pause = service.proxy.pause_at(1, request, after=COMMIT)
    process = start(*command)
    assert pause.reached.wait(60), process.communicate()
    process.kill()
    process.communicate()
    pause.over.set()
    service.proxy.heal()


@pytest.mark.parametrize(
    "request_killed",
    ["PUT .*/files/", "GET .*/files/", COMMIT],
    ids=["file", "read_back", "manifest"],
)
def test_a_run_killed_in_an_upload_resumes_bitwise_from_the_store_alone(
    service, expected, tmp_path, request_killed
):
    kill_in(service, upload(service, tmp_path.name, tmp_path / "run"), request_killed)
    shutil.rmtree(tmp_path / "run")
    assert_resumed_from_the_store_alone(service, tmp_path, TINY, expected)


@pytest.mark.parametrize(
    "faults", [["503", "500"], ["lost", "unanswered", "half"]], ids=["busy", "cut"]
)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_does_not_notice_that_a_third_of_the_requests_fail(
    service, expected, tmp_path, faults, seed
):
    service.proxy.fail_share(0.3, faults, seed)
    done = run(*upload(service, tmp_path.name, tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert final_state(done) == expected
    counts = service.proxy.counts
    assert all(counts[fault] for fault in faults), counts
    shutil.rmtree(tmp_path / "run")
    seen = assert_resumed_from_the_store_alone(service, tmp_path, TINY, expected, oldest=True)
    assert "step-00000024" in seen or NAMED.search(done.stderr), done.stderr


@pytest.mark.parametrize("request_refused", [r"PUT .*/step-00000024\.json", ""])
def test_expired_credentials_leave_pending_uploads_which_the_next_run_sends(
    service, expected, tmp_path, request_refused
):
    command = upload(service, tmp_path.name, tmp_path / "run", "cloud.wait=2")
    service.proxy.fail_after(request_refused, "expired", matched_too=True)
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


@pytest.mark.parametrize("request_refused", ["", r"PUT .*/step-00000024\.json"])
def test_a_required_store_that_fails_fails_the_run(service, tmp_path, request_refused):
    service.proxy.fail_after(request_refused, "expired", matched_too=True)
    options = ("cloud.wait=2", "cloud.required=true")
    done = run(*upload(service, tmp_path.name, tmp_path / "run", *options))
    assert done.returncode == (74 if request_refused else 69), done.stderr
    assert "Traceback" not in done.stderr
    if request_refused:
        assert load_checkpoint(tmp_path / "run" / "checkpoints" / "step-00000024").step == 24


@pytest.mark.parametrize("fault", ["lost", "503", "500", "unanswered", "half"])
def test_a_store_that_never_answers_does_not_keep_a_run_from_its_end(
    service, expected, tmp_path, fault
):
    service.proxy.fail_all(fault)
    done = run(*upload(service, tmp_path.name, tmp_path / "run", "cloud.wait=2"))
    assert done.returncode == 0, done.stderr
    assert final_state(done) == expected
    assert NAMED.search(done.stderr), done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("cloud: ")]
    assert len(lines) <= 2, done.stderr  # the first attempt may fail after the end of the training


def test_launched_processes_resume_bitwise_from_the_store_alone(tmp_path):
    store = f"{tmp_path}/copies"
    length = ("trainer.max_steps=6", "trainer.eval_every=6")
    overrides = tiny_overrides(*length, "checkpointing.every_steps=2", "checkpointing.keep=9")
    uploading = [*overrides, "cloud=directory", f"cloud.path={store}", "cloud.prefix="]
    done = run("nproc=2", *uploading, f"hydra.run.dir={tmp_path}/run", script="launch")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cloud: ") == 1  # only one process uploads
    (key,) = open_address(f"file://{store}", {}).store.list("copies").folders
    address = f"file://{tmp_path}/{key}/step-00000002"
    empty = f"hydra.run.dir={tmp_path}/empty"
    resumed = run("nproc=2", f"resume={address}", empty, script="launch")
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed from step-00000002" in resumed.stderr
    assert final_state(resumed) == final_state(done)


def directory(folder: Path, *more: str) -> list[str]:
    return [*TINY, "cloud=directory", f"cloud.path={folder}/copies", "cloud.wait=1", *more]


@needs_root
@pytest.mark.parametrize("state", ["full", "read-only"])
def test_a_directory_that_cannot_be_written_costs_copies_and_nothing_else(
    expected, tmp_path, state
):
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
        copies = f"file://{disk}/copies/checkpoints"
        assert "step-00000024" in verified(copies, tmp_path / "fetched")

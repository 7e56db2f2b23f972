"""A proxy with a password in the environment: the store cannot be reached, and the password is shown nowhere."""

from support.processes import run, tiny_overrides

PROXY = "http://user:hunter2@127.0.0.1:9"


def test_the_password_of_a_proxy_reaches_no_file_and_no_output(tmp_path):
    settings = [
        setting
        for setting in tiny_overrides("trainer.max_steps=2")
        if not setting.startswith("tracking=")
    ]
    store = ["tracking=mlflow", "tracking.uri=http://tracker.invalid:5000", "tracking.wait=2"]
    variables = {"http_proxy": PROXY, "HTTP_PROXY": PROXY, "HTTPS_PROXY": PROXY, "no_proxy": ""}
    variables |= {"HOME": str(tmp_path), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    trained = run(*settings, *store, f"hydra.run.dir={tmp_path}/run", **variables)
    assert trained.returncode == 0, trained.stderr
    synced = run(
        "sync", f"{tmp_path}/run", "uri=http://tracker.invalid:5000", script="runs", **variables
    )
    assert synced.returncode != 0
    assert "Traceback" not in synced.stderr
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"tracker.invalid" in data for data in written)
    assert not any(b"hunter2" in data for data in written)
    assert "hunter2" not in trained.stdout + trained.stderr + synced.stdout + synced.stderr

"""What `ui` refuses, each in one line."""

import signal

import pytest

from support.commands import command

main = command("ui")


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["uri=sqlite:///nothing.db"], 69, "no store found"),
        (["uri=https://server"], 2, "https://server: a server"),
        (["port=0"], 2, "port=0"),
        (["nonsense=1"], 2, "nonsense"),
    ],
)
def test_what_cannot_be_served_is_one_line(tmp_path, monkeypatch, capsys, args, code, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mlxlab.cli.ui.project_root", lambda: tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before = signal.getsignal(signal.SIGTERM)
    assert main(args) == code
    assert signal.getsignal(signal.SIGTERM) == before
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert list(tmp_path.iterdir()) == []

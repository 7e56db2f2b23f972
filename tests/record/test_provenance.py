"""The code of a run: commit and uncommitted changes, without secrets and within a limit."""

import subprocess

from mlxlab.record import provenance

TOKEN = "hf_" + "abcdefgh" * 4


def test_uncommitted_changes_have_no_secrets_and_a_limited_size(tmp_path, monkeypatch):
    def git(*args):
        settings = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
        subprocess.run(
            ["git", "-C", str(tmp_path), *settings, *args], check=True, capture_output=True
        )

    monkeypatch.setattr(provenance, "_checkout", lambda: tmp_path)
    assert provenance.code(provenance.git()) == provenance.UNKNOWN_CODE
    git("init", "-q")
    (tmp_path / "a.py").write_text("a = 1\n")
    git("add", "a.py")
    git("commit", "-qm", "first")
    clean = provenance.code(provenance.git())
    assert (clean["diff"], clean["digest"]) == ("", "")
    (tmp_path / "a.py").write_text(f"a = 2\nlogin('{TOKEN}')\npassword = 'correct horse'\n")
    changed = provenance.code(provenance.git())
    assert changed["commit"] == clean["commit"]
    assert "+a = 2\n+login('***')\n+password = ***\n" in changed["diff"]
    monkeypatch.setattr(provenance, "MAX_DIFF", 50)
    assert len(provenance.code(provenance.git())["diff"]) == 50

"""The page of environment variables names those that the code reads, and no others."""

import re
from functools import cache

from support.processes import ROOT

PAGE = (ROOT / "docs" / "reference" / "environment.md").read_text(encoding="utf-8")
READ = r"os\.(?:environ(?:\.get|\.pop)?|getenv)[(\[]\"(\w+)\""
SET_ONLY = """GIT_PYTHON_REFRESH MLFLOW_DISABLE_TELEMETRY MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR
MLFLOW_SQLALCHEMYSTORE_POOLCLASS MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"""
OF_CHILDREN = """HYDRA_FULL_ERROR MLFLOW_BACKEND_STORE_URI MLFLOW_DEFAULT_ARTIFACT_ROOT
MLFLOW_SERVER_ENABLE_JOB_EXECUTION MLX_METAL_FAST_SYNCH MLX_RING_VERBOSE NCCL_DEBUG
NCCL_IB_DISABLE NCCL_P2P_DISABLE NCCL_SOCKET_IFNAME LC_ALL
WANDB_DATA_DIR WANDB_ERROR_REPORTING WANDB_SILENT"""
NO_VARIABLES = """CAUSAL_LM F_FULLFSYNC INVALID_PARAMETER_VALUE INVALID_STATE NOT_FOUND
RESOURCE_ALREADY_EXISTS RESOURCE_DOES_NOT_EXIST SC_PAGE_SIZE SC_PHYS_PAGES SEQ_CLS"""


@cache
def source():
    return "\n".join(file.read_text() for file in (ROOT / "src" / "mlxlab").rglob("*.py"))


def constants():
    """The texts of the code that look like the name of a variable."""
    texts = re.findall(r"[\"']([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)[\"']", source())
    return {*texts, *re.findall(READ, source())}


def documented():
    rows = re.findall(r"^\| (`.*?) \|", PAGE, re.M)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def test_every_variable_that_the_code_reads_is_documented():
    assert {"MLXLAB_DEVICE", "MLFLOW_TRACKING_URI", "PMI_RANK", "AWS_ALLOW_HTTP"} <= constants()
    others = f"{SET_ONLY} {OF_CHILDREN} {NO_VARIABLES}".split()
    assert constants() - set(others) <= set(documented())


def test_every_documented_variable_is_in_the_code():
    names = documented()
    assert len(names) == len(set(names)) > 40
    words = set(re.findall(r"[A-Z][A-Z0-9_]+", source()))
    assert set(names) <= words  # libraries read some of them, whose names the code mentions
    assert {name for name in names if name.startswith("MLXLAB_")} <= constants()

"""The folder of what several runs are trained or compared for, named by the settings."""

import hashlib
import json
import re
from pathlib import Path

from mlxlab.config.paths import project_root


def output_folder(parent: Path, label: str, settings: object) -> Path:
    """A folder below `parent`, of the project: other settings have another one, the same when they are repeated."""
    text = json.dumps(settings, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    name = re.sub(r"[^a-zA-Z0-9_]+", "-", label).strip("-")[:60]
    return project_root() / parent / f"{name}-{digest}"

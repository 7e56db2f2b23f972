#!/usr/bin/env python3
"""Completes commands and options in a shell: scripts/completion.py install|show bash|zsh|fish"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

try:
    from mlxlab.cli.completion import main
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Registered models: scripts/registry.py list | compare NAME 1 2 | promote NAME 2 | rollback NAME | history NAME"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

try:
    from mlxlab.cli.registry import main
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())

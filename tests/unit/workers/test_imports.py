from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["workers.celery_app", "workers.supervisor", "app.db.submit"])
def test_neither_workers_nor_orchestration_load_torch(module: str) -> None:
    program = (
        f"import sys, {module}; sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

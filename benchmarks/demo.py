"""The demo's table and how long the demo takes: ``python benchmarks/demo.py``.

Runs ``deft demo --json`` once (minutes) and writes ``results/demo.json``, whose table the README shows. The
scores do not change from run to run on one kind of machine; the seconds do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from deft_engine.matrix_products import cpu_name

RESULT = Path(__file__).parent / "results" / "demo.json"


def main() -> None:
    started = time.perf_counter()
    demo = [str(Path(sys.executable).with_name("deft")), "demo", "--json"]
    finished = subprocess.run(demo, stdout=subprocess.PIPE, check=True)
    result = {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "seconds": round(time.perf_counter() - started, 1),
        **json.loads(finished.stdout),
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

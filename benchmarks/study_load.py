"""Fifty raters at once: ``python benchmarks/study_load.py``.

Starts PostgreSQL, Valkey and one process of the API on this machine, makes a study of 5,000 pairs with two
raters each, repeats, gold and a tutorial, and lets fifty raters vote over HTTP until nothing is left: more
than 10,000 votes. Each thinks for ``--pause`` seconds on average over a pair; the raters share the service's
cores. Writes ``results/study_load.json``: what the study holds in the end, and how long requests took.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from measuring import machine, parser, seconds, write

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tests' world has the raters

from tests.served_process import served_process
from tests.study_load import books, invite, make_study, rate_at_once, researcher

_SUBSETS = ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection")
_RATERS, _PER_SUBSET, _RATERS_PER_PAIR = 50, 1250, 2
_DESIGN = {"raters_per_pair": _RATERS_PER_PAIR, "repeats": 0.05, "gold_share": 0.05, "tutorial": 5}


@contextmanager
def database_and_broker() -> Iterator[None]:
    """Fresh servers, named by this process's settings; the database's tables are there."""
    from app.embedded.postgres import EmbeddedPostgres
    from app.embedded.prepare import migrate
    from app.embedded.valkey import EmbeddedValkey

    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deft-load-")))
        home.chmod(0o711)
        postgres = stack.enter_context(EmbeddedPostgres(home / "postgres"))
        valkey = stack.enter_context(EmbeddedValkey(home / "valkey"))
        os.environ |= {
            "DEFT_HOME": str(home / "home"),
            "DEFT_DATABASE_URL": postgres.url,
            "DEFT_REDIS_URL": valkey.url,
        }
        migrate()
        yield


def cpu_seconds() -> dict[str, float]:
    """What the service and, in this process, the raters have used of the cores, whatever else runs there."""
    used = {"api": 0.0, "postgres": 0.0, "raters": sum(psutil.Process().cpu_times()[:2])}
    for process in psutil.Process().children(recursive=True):
        times = process.cpu_times()
        name = "postgres" if process.name().startswith("postgres") else "api"
        used[name] += times.user + times.system + times.children_user + times.children_system
    return used


def milliseconds(waits: Sequence[float]) -> dict[str, float]:
    """Quantiles of how long a rater waited."""
    quantiles = {"p50": 50, "p95": 95, "p99": 99, "max": 100}
    return {name: round(1000 * float(np.percentile(waits, q)), 1) for name, q in quantiles.items()}


def measured(pause: float) -> dict[str, Any]:
    """One run."""
    gold = [{"prompt": f"Which is {n}?", "better": str(n), "worse": str(n + 1)} for n in range(25)]
    with database_and_broker(), served_process() as service, researcher(service.url) as http:
        study = make_study(http, dict.fromkeys(_SUBSETS, _PER_SUBSET), gold=gold, **_DESIGN)
        keys = invite(http, study, _RATERS)
        before = cpu_seconds()
        load = rate_at_once(service.url, study["id"], keys, pause)
        spent = {name: after - before[name] for name, after in cpu_seconds().items()}
        found = books(http, study["id"])
        afterwards = {
            name: round(seconds(lambda path=path: http.get(path).raise_for_status()), 2)
            for name, path in {
                "results": f"/studies/{study['id']}/results",
                "annotators": f"/studies/{study['id']}/annotators",
                "export": f"/studies/{study['id']}/export.csv",
            }.items()
        }
    requests = sum(map(len, load.waits.values()))
    return {
        "acknowledged": len(load.votes),
        "lost_or_doubled": abs(found.votes - len(load.votes))
        + sum((found.choices - Counter(load.votes.values())).values()),
        "votes_that_count": found.of_pair.total(),
        "pairs_by_their_votes": dict(Counter(found.of_pair.values())),
        "worst_balance": found.worst_balance,
        "seconds": round(load.seconds, 1),
        "requests_per_second": round(requests / load.seconds, 1),
        "cpu_ms_per_request": {name: round(1000 * used / requests, 2) for name, used in spent.items()},
        "ms": {kind: milliseconds(waits) for kind, waits in load.waits.items()},
        "seconds_of_researchers": afterwards,
        "ms_all": milliseconds([wait for waits in load.waits.values() for wait in waits]),
    }


def main() -> None:
    arguments = parser(__doc__, "study_load")
    arguments.add_argument("--pause", type=float, default=1.0, help="seconds over a pair, on average")
    asked = arguments.parse_args()
    here = machine()
    design = {"raters": _RATERS, "pairs": len(_SUBSETS) * _PER_SUBSET, **_DESIGN, "pause": asked.pause}
    write(asked.out, {**here, "design": design, **measured(asked.pause)})


if __name__ == "__main__":
    main()

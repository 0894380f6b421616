"""What `pytest -n 2` gives to one worker as a whole."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

WHOLE_SERVICE = "tests on the whole service"
SERVERS = "tests on the database and the broker"
UNITS = {
    "tests/browser/": WHOLE_SERVICE,
    "tests/e2e/": WHOLE_SERVICE,
    "tests/contract/": SERVERS,
    "tests/integration/": SERVERS,
}


class ByServers(LoadScopeScheduling):
    """Tests that share servers run one after another, so that each server is started once; others go by file.

    A worker begins the next unit in the order of collection: first those two, which are the longest. A broker
    that the environment names has one user at a time, too, whose tests may empty it.
    """

    def _split_scope(self, nodeid: str) -> str:
        for folder, unit in UNITS.items():
            if nodeid.startswith(folder):
                return unit
        return nodeid.partition("::")[0]

"""A cap on tokens, kept to the token: a request's worst case is set aside before it is sent.

The ledger is a file of JSON lines, ``{"id", "held"}`` before a request and ``{"id", "spent"}`` behind it.
What was held when a process was killed may have been paid for, so it counts as spent.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from deft_engine.errors import BudgetExhausted

_LOOK_SECONDS = 0.5


class TokenBudget:
    """Spends up to ``limit`` tokens (None: any number); safe for threads.

    Args:
        path: the ledger; one that is there already is gone on with.
        limit: tokens, over all that the ledger holds.
        stopping: set to let waiting threads go.
    """

    def __init__(self, path: Path, limit: int | None, stopping: threading.Event) -> None:
        self._limit = limit
        self._stopping = stopping
        self._changed = threading.Condition()
        self._held: dict[int, int] = {}
        self._spent, self._last_id = _read(path)
        self._file = path.open("ab", buffering=0)

    @property
    def spent(self) -> int:
        """Tokens paid for, or perhaps paid for."""
        with self._changed:
            return self._spent

    def reserve(self, tokens: int) -> int:
        """Set ``tokens`` aside and return a number for ``settle``; waits while others may give some back.

        Raises:
            BudgetExhausted: nothing is under way, and there is no room.
        """
        with self._changed:
            while not self._fits(tokens):
                if not self._held or self._stopping.is_set():
                    raise BudgetExhausted(
                        f"the token budget of {self._limit} has {self._spent} spent, and the next request "
                        f"may take {tokens}",
                        hint="raise token_budget and send the job again; answers so far are kept and cost "
                        "nothing",
                    )
                self._changed.wait(_LOOK_SECONDS)
            self._last_id += 1
            self._held[self._last_id] = tokens
            self._write({"id": self._last_id, "held": tokens})
            os.fsync(self._file.fileno())
            return self._last_id

    def settle(self, reservation: int, spent: int) -> None:
        """The request is over and took ``spent`` tokens."""
        with self._changed:
            del self._held[reservation]
            self._spent += spent
            self._write({"id": reservation, "spent": spent})
            self._changed.notify_all()

    def close(self) -> None:
        """Close the ledger."""
        self._file.close()

    def _fits(self, tokens: int) -> bool:
        return self._limit is None or self._spent + sum(self._held.values()) + tokens <= self._limit

    def _write(self, entry: dict[str, int]) -> None:
        self._file.write(json.dumps(entry).encode() + b"\n")


def _read(path: Path) -> tuple[int, int]:
    """Tokens spent according to a ledger, and its last id; an unfinished last line is dropped."""
    if not path.exists():
        return 0, 0
    tokens: dict[int, int] = {}
    whole = 0
    with path.open("r+b") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            entry = json.loads(line)
            tokens[entry["id"]] = entry.get("spent", entry.get("held", 0))
        file.truncate(whole)
    return sum(tokens.values()), max(tokens, default=0)

"""Where and as whom PostgreSQL runs: it refuses root, and another user can't enter root's private folders."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import stat
from pathlib import Path

from app.embedded.process import Account, EmbeddedError

ROOTS_PLACE = Path("/var/lib/deft")
"""Where the data goes when root's home folder can't be entered by the server's user."""

_CANDIDATES = ("postgres", "nobody")
_NOT_NEEDED = ("__pycache__", "*.py", "include", "*.a", "doc")


def server_account() -> Account | None:
    """The user for a server that refuses root: none for ordinary users, else ``postgres`` or ``nobody``."""
    if os.geteuid() != 0:
        return None
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid, name)
    raise EmbeddedError(
        "PostgreSQL refuses to run as root and this machine has no user `postgres` or `nobody`: "
        "run `deft up` as an ordinary user, or name a server in DEFT_DATABASE_URL"
    )


def place_for(folder: Path, account: Account | None) -> Path:
    """``folder`` itself where ``account`` can enter all folders above it, else one under ``/var/lib/deft``.

    The other place is named after ``folder``, so the same folder always finds its data again.
    """
    folder = folder.absolute()
    if account is None or all(_can_enter(parent, account) for parent in folder.parents):
        return folder
    return ROOTS_PLACE / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]


def open_to(folder: Path, account: Account | None) -> None:
    """Let ``account`` pass through our own ``folder`` (group and mode 710), but not list it."""
    if account is None or _can_enter(folder, account):
        return
    os.chown(folder, -1, account.gid)
    folder.chmod(stat.S_IMODE(folder.stat().st_mode) | stat.S_IXGRP)


def _can_enter(folder: Path, account: Account) -> bool:
    if not folder.exists():  # made later, by us
        return True
    status = folder.stat()
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def copy_tree_for(account: Account, sources: list[Path], target: Path) -> None:
    """Copy folders into ``target`` for ``account`` to read; complete or not there at all."""
    if target.exists():
        return
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for source in sources:
        shutil.copytree(
            source, partial / source.name, symlinks=True, ignore=shutil.ignore_patterns(*_NOT_NEEDED)
        )
    for path in [partial, *partial.rglob("*")]:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
    partial.replace(target)

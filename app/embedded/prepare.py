"""What a database needs before the service runs on it: its tables, and a key for the home's owner.

``python -m app.embedded.prepare`` does it for the database and the home of the settings.
"""

from __future__ import annotations

import sys
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy.orm import Session

import migrations
from app.db.models import ApiKey, Role
from app.db.session import transaction
from app.embedded.process import EmbeddedError
from app.embedded.supervisor import write_whole
from app.keys import create_key, hash_secret, is_usable
from app.settings import get_settings


def prepare(admin_key_file: Path) -> None:
    """Migrate, and on the first start make the admin key and print it."""
    migrate()
    new_key = ensure_admin_key(admin_key_file)
    if new_key is not None:
        print(f"Admin key (shown once; kept in {admin_key_file}): {new_key}", flush=True)


def migrate() -> None:
    """Bring the settings' database to this version's tables.

    Raises:
        EmbeddedError: there is no such server, or a newer version of DEFT wrote the database.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise EmbeddedError(
            f"the database does not fit this version of DEFT: {error}; install the newer one"
        ) from error
    except sa.exc.OperationalError as error:
        raise EmbeddedError(f"no database: {error.orig}; is DEFT_DATABASE_URL right?") from error


def ensure_admin_key(file: Path) -> str | None:
    """Make an admin key and keep it in ``file``, unless the key there is still good; the new key's text."""
    with transaction() as session:
        if file.exists() and _is_admin(session, file.read_text().strip()):
            return None
        _, text = create_key(session, name="admin of this home", role=Role.ADMIN)
        write_whole(file, text + "\n")  # before the commit: a key that nobody knows is of no use
        return text


def _is_admin(session: Session, text: str) -> bool:
    known = sa.select(ApiKey.id).where(
        ApiKey.hash == hash_secret(text), ApiKey.role == Role.ADMIN, is_usable()
    )
    return session.scalar(known) is not None


def main() -> int:
    """Prepare the settings' database; the process's exit status."""
    home = get_settings().home
    try:
        home.mkdir(parents=True, exist_ok=True)
        prepare(home / "admin.key")
    except (EmbeddedError, OSError) as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The embedded broker keeps what it acknowledged and lets nobody in without the password."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import redis
from redis.backoff import ConstantBackoff, NoBackoff
from redis.retry import Retry

from app.embedded.process import EmbeddedError
from app.embedded.valkey import EmbeddedValkey


def test_every_acknowledged_write_survives_a_kill(home: Path) -> None:
    with EmbeddedValkey(home / "valkey") as server:
        client = redis.Redis.from_url(server.url)
        for number in range(500):
            client.rpush("queue", number)
        assert server.process is not None
        server.process.kill()
        server.process.wait()
        server.stop()
        server.start()
        again = redis.Redis.from_url(server.url)
        assert again.llen("queue") == 500
        again.close()
        client.close()


def test_it_listens_on_loopback_with_a_password_and_never_evicts(home: Path) -> None:
    with EmbeddedValkey(home / "valkey") as server, redis.Redis.from_url(server.url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("bind") == {"bind": "127.0.0.1"}
        stranger = redis.Redis(
            port=client.connection_pool.connection_kwargs["port"], retry=Retry(NoBackoff(), 0)
        )
        with pytest.raises(redis.exceptions.AuthenticationError):
            stranger.ping()
        stranger.close()
        assert (home / "valkey" / "valkey.conf").stat().st_mode & 0o777 == 0o600


def test_its_process_comes_back_on_the_same_port(home: Path) -> None:
    with EmbeddedValkey(home / "valkey") as server:
        url = server.url
        assert server.process is not None
        server.process.kill()
        server.process.wait()
        server.launch()
        with redis.Redis.from_url(url, retry=Retry(ConstantBackoff(0.02), 200)) as client:
            assert client.ping()


def test_a_second_one_on_the_same_folder_is_refused(home: Path) -> None:
    with EmbeddedValkey(home / "valkey"), pytest.raises(EmbeddedError, match="used by another process"):
        EmbeddedValkey(home / "valkey").start()


DIES_AT_A_FILE_OPERATION = """
import os, sys
from pathlib import Path
from app.embedded.valkey import EmbeddedValkey

left = int(sys.argv[2])

def die(event, arguments):
    global left
    if event in ("open", "os.rename"):
        left -= 1
        if left < 0:
            os._exit(9)

server = EmbeddedValkey(Path(sys.argv[1]))
sys.addaudithook(die)
server.url
"""


def test_a_kill_at_any_moment_leaves_a_whole_password_or_none(tmp_path: Path) -> None:
    for operations in range(10):
        folder = tmp_path / str(operations)
        folder.mkdir()
        command = [sys.executable, "-c", DIES_AT_A_FILE_OPERATION, str(folder), str(operations)]
        ended = subprocess.run(command, check=False)
        password = folder / "password"
        assert not password.exists() or len(password.read_text()) >= 32, f"after {operations} operations"
        if ended.returncode == 0:
            break
    assert (ended.returncode, password.stat().st_mode & 0o777) == (0, 0o600)
    assert operations > 1  # it was killed on the way


def test_an_empty_password_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "password").touch()
    assert ":@" not in EmbeddedValkey(tmp_path).url

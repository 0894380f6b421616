"""Processes on several hosts: what a hostfile says, and (slow) a training on two network namespaces."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deft_engine.errors import SpecError
from deft_engine.hostfile import (
    HOSTFILE_VARIABLE,
    SHELL_VARIABLE,
    Host,
    hosts_for,
    remote_command,
    remote_script,
)
from deft_engine.losses import SFT
from deft_engine.run import EXIT_FAILED, EXIT_SUCCEEDED
from tests.unit.engine.stage_folders import error_of, make_samples, make_stage, points, run_stage, weights
from tests.unit.engine.test_train_policy import train_spec

HOSTS = ("10.213.7.1", "10.213.7.2")


def listed(folder: Path, text: str) -> dict[str, str]:
    (folder / "hosts").write_text(text)
    return {HOSTFILE_VARIABLE: str(folder / "hosts")}


def test_hosts_are_taken_in_order_until_their_slots_are_enough(tmp_path: Path) -> None:
    environment = listed(tmp_path, "# our cluster\nalpha slots=2\n\nbeta slots=4  # bigger\ngamma slots=8\n")
    assert hosts_for(1, environment) == [Host("alpha", 1)]
    assert hosts_for(2, environment) == [Host("alpha", 2)]
    assert hosts_for(5, environment) == [Host("alpha", 2), Host("beta", 3)]
    assert sum(host.processes for host in hosts_for(14, environment)) == 14
    assert hosts_for(3, {}) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("alpha slots=1\nbeta slots=2\n", "have 3 slots"),
        ("alpha slots=9\nbeta", "line 2: 'beta'"),
        ("alpha slots=0\n", "line 1"),
        ("alpha slots=2\nalpha slots=2\n", "line 2"),
    ],
)
def test_what_a_hostfile_cannot_say(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=said):
        hosts_for(4, listed(tmp_path, text))


def test_a_hostfile_that_is_not_there_ends_the_stage_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HOSTFILE_VARIABLE, str(tmp_path / "nothing"))
    spec = train_spec(SFT(), engine="ddp", processes=2)
    folder = make_stage(tmp_path / "stage", "train", spec, make_samples(2))
    assert run_stage(folder) == EXIT_FAILED
    assert str(tmp_path / "nothing") in error_of(folder)["message"]


def test_a_script_brings_the_command_and_the_settings_whole(tmp_path: Path) -> None:
    said = 'it\'s "$HOME" `id` \\ and\nmore'
    script = remote_script(["printf", "%s|%s", said, "two"], {"OMP_NUM_THREADS": said, "SECRET": "x"})
    shell = [
        "env",
        "-i",
        f"PATH={os.environ['PATH']}",
        *remote_command(Host("-S", 1), {SHELL_VARIABLE: "env"}),
    ]
    printed = subprocess.run(
        shell, input=script, stdout=subprocess.PIPE, text=True, check=True, cwd=tmp_path
    ).stdout
    assert printed == f"{said}|two"
    kept = script.replace("exec printf", "exec sh -c 'printf %s \"$OMP_NUM_THREADS$SECRET\"' ignored")
    assert (
        subprocess.run(["sh", "-s"], input=kept, stdout=subprocess.PIPE, text=True, check=True).stdout == said
    )


@pytest.fixture
def namespaces() -> Iterator[tuple[str, str]]:
    """Two network namespaces on one cable; each is called as its address."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    one, other = HOSTS

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    try:
        for name in HOSTS:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", one, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", other)
        for name in HOSTS:
            ip("-n", name, "address", "add", f"{name}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
        yield HOSTS
    finally:
        for name in HOSTS:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.mark.slow
def test_where_processes_run_changes_no_bit(
    namespaces: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    samples, spec = make_samples(6), train_spec(SFT(), engine="ddp", processes=2)
    here = make_stage(tmp_path / "here", "train", spec, samples)
    assert run_stage(here) == EXIT_SUCCEEDED
    hosts = listed(tmp_path, "".join(f"{name} slots=1\n" for name in namespaces))
    monkeypatch.setenv(HOSTFILE_VARIABLE, hosts[HOSTFILE_VARIABLE])
    monkeypatch.setenv(SHELL_VARIABLE, "ip netns exec")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "cable")
    spread = make_stage(tmp_path / "spread", "train", spec, samples)
    assert run_stage(spread) == EXIT_SUCCEEDED
    assert weights(spread) == weights(here)
    assert points(spread) == points(here)

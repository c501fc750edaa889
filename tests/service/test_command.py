"""`lmtune-server` up to the moment it serves: its settings, its address, its lock."""

from __future__ import annotations

import logging
import socket
import sys
from pathlib import Path

import pytest

from service import command
from service.settings import Settings
from studies.errors import StartupError


@pytest.fixture(autouse=True)
def _quiet(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["lmtune-server"])
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)


BAD = [
    ("LMTUNE_PORT", "http"),
    ("LMTUNE_PORT", "70000"),
    ("LMTUNE_WORKERS", "many"),
    ("LMTUNE_WORKERS", "-1"),
    ("LMTUNE_LEASE_SECONDS", "0"),
    ("LMTUNE_LEASE_SECONDS", "nan"),
    ("LMTUNE_MAX_BLOB_BYTES", "0"),
    ("LMTUNE_ALLOW_HTTP", "perhaps"),
    ("LMTUNE_LOG_LEVEL", "loud"),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_setting_that_makes_no_sense_is_named(home, monkeypatch, capsys, name, value) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        command.main()
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (1, "")
    assert said.err.startswith(f"lmtune-server: {name}: '{value}': ")
    assert said.err.count("\n") == 1
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("proxy", ["*", "proxy.example", "10.1.0.5/16"])
def test_a_proxy_is_named_by_its_address(home, monkeypatch, capsys, proxy) -> None:
    monkeypatch.setenv("LMTUNE_TRUSTED_PROXIES", f'["{proxy}"]')
    with pytest.raises(SystemExit):
        command.main()
    assert capsys.readouterr().err.startswith(f"lmtune-server: LMTUNE_TRUSTED_PROXIES: '{proxy}': ")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "tuner.example"])  # noqa: S104
def test_an_address_beyond_this_machine_needs_a_word(monkeypatch, capsys, host) -> None:
    monkeypatch.setenv("LMTUNE_HOST", host)
    with pytest.raises(SystemExit):
        command.main()
    assert f"{host} is reached from other machines" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_the_loopback_needs_none(host) -> None:
    command._check_bind(Settings(host=host))
    command._check_bind(Settings(host="0.0.0.0", allow_http=True))  # noqa: S104


def test_connections_answer_at_once() -> None:
    """Without TCP_NODELAY every answer on a kept connection waits 40 ms for an acknowledgement."""
    with (
        command._bind(Settings(port=0)) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_one_server_per_home(home: Path) -> None:
    refused = pytest.raises(StartupError, match=r"another server \(pid \d+\) runs on")
    with command._only_server_of(home), refused:
        command._only_server_of(home)
    command._only_server_of(home).close()


@pytest.mark.parametrize(
    ("host", "reached"),
    [("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("10.0.0.1", "10.0.0.1")],  # noqa: S104
)
def test_workers_are_told_an_address_that_they_can_reach(host, reached) -> None:
    assert command._reachable(host) == reached


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ({}, "LMTUNE_WORKERS: say how many"),
        (
            {"workers": 2, "launcher_options": {"gpus": 1}},
            "LAUNCHER_OPTIONS: gpus: .*num_gpus",
        ),
        ({"workers": 2, "launcher_options": {"num_cpus": 0}}, "num_cpus: Input should be greater"),
    ],
)
def test_what_a_launcher_cannot_use_is_named(home: Path, given, remedy) -> None:
    settings = Settings(home=home, launcher="ray", **given)
    with pytest.raises(StartupError, match=remedy):
        command._launcher(settings, "http://127.0.0.1:1", "lmt_x")

"""What each extra installs, from a real wheel into a real environment of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from service.routes.assets import PLOTLY
from tests.harness.process import ROOT, free_port, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.nightly]


def install(folder: Path, extra: str) -> Path:
    """Returns the programs' folder of a new environment that has lmtune with this extra."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    target = f"{ROOT}[{extra}]" if extra else str(ROOT)
    options = ["-qq", "--disable-pip-version-check", "--no-compile"]
    pins = ["--constraint", ROOT / "constraints.txt"]
    pip = [folder / "bin" / "python", "-m", "pip", "install", *options, *pins, target]
    subprocess.run(pip, check=True, cwd=folder)
    return folder / "bin"


def has(programs: Path, module: str) -> bool:
    code = f"import importlib.util as u; raise SystemExit(u.find_spec({module!r}) is None)"
    done = subprocess.run([programs / "python", "-c", code], check=False, cwd=programs)
    return done.returncode == 0


def output(program: Path, *arguments: str) -> str:
    done = subprocess.run(
        [program, *arguments], check=True, cwd=program.parent, capture_output=True, text=True
    )
    return done.stdout


def test_the_command_alone_needs_neither_server_nor_worker(tmp_path: Path) -> None:
    programs = install(tmp_path / "venv", "")
    assert not any(has(programs, name) for name in ("torch", "fastapi", "optuna", "sqlalchemy"))
    assert "watch" in output(programs / "lmtune", "--help")
    assert "name: quickstart" in output(programs / "lmtune", "catalog", "quickstart")


def test_a_server_installs_without_torch_and_serves(tmp_path: Path) -> None:
    programs = install(tmp_path / "venv", "server")
    assert not has(programs, "torch")
    assert "reconcile" in output(programs / "lmtune-server", "--help")
    port, home = free_port(), tmp_path / "home"
    env = {**os.environ, "LMTUNE_HOME": str(home), "LMTUNE_WORKERS": "0"}
    command = [programs / "lmtune-server", "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, env=env, cwd=programs, stdout=log, stderr=log)
    try:
        wait_for(lambda: (home / "url").exists() or server.poll() is not None, 60, "server")
        base = f"http://127.0.0.1:{port}"
        style = re.search(r'"(/static/\w+/)style.css"', httpx.get(f"{base}/login").text)
        assert style
        sent = {name: httpx.get(f"{base}{style[1]}{name}") for name in ("style.css", PLOTLY)}
        assert all("immutable" in answer.headers["cache-control"] for answer in sent.values())
        assert "cartesian" in sent[PLOTLY].text[:100]
    finally:
        server.terminate()
        server.wait(30)
    assert server.returncode == 0, (tmp_path / "log").read_text()


def test_a_worker_installs_without_the_servers_packages(tmp_path: Path) -> None:
    programs = install(tmp_path / "venv", "worker")
    assert not any(has(programs, name) for name in ("fastapi", "optuna", "sqlalchemy", "plotly"))
    assert has(programs, "torch")
    assert "--recipe" in output(programs / "lmtune-worker", "--help")

"""lmtune's own programs as real processes: a server and its workers."""

from __future__ import annotations

import time
from pathlib import Path

import httpx

from studies.client import Client
from studies.wire import StudyView
from tests.harness.process import PATIENCE, Process, free_port, wait_for


class Server(Process):
    """`python -m service` on its own port; `kill` and `start` again make a crash and a restart."""

    def __init__(self, home: Path, database_url: str, env: dict[str, str]) -> None:
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        settings = {
            "LMTUNE_HOME": str(home),
            "LMTUNE_DATABASE_URL": database_url,
            "LMTUNE_PORT": str(self.port),
            "LMTUNE_WORKERS": "0",
        }
        home.mkdir(parents=True, exist_ok=True)
        super().__init__("service", [], {**settings, **env}, home / "test-server.log")
        self._client: Client | None = None

    @property
    def token(self) -> str:
        return (self.home / "token").read_text().strip()

    @property
    def client(self) -> Client:
        """A client with the server's token; it also reaches the server after a restart."""
        if self._client is None:
            self._client = Client(self.url, self.token)
        return self._client

    def start(self) -> None:
        """Starts it, and returns when it is ready."""
        super().start()
        wait_for(self._ready, 60, f"/readyz at {self.url}")

    def stop(self, seconds: float = 60.0) -> int | None:
        """Ends it, its workers and the client; see Process.stop."""
        if self._client is not None:
            self._client.http.close()
            self._client = None
        return super().stop(seconds)

    def _ready(self) -> bool:
        if not self.running:
            raise RuntimeError(f"the server ended with {self.wait()}:\n{self.output}")
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5 * PATIENCE).status_code == 200
        except httpx.TransportError:
            return False

    def wait_for_end(self, study: str, seconds: float) -> StudyView:
        """Returns the study once it has ENDED; `seconds` are an idle machine's, see PATIENCE."""
        end = time.monotonic() + PATIENCE * seconds
        while (view := self.client.studies.get(study)).state != "ENDED":
            if time.monotonic() > end:
                raise TimeoutError(f"{view}\n{self.output[-4_000:]}")
            time.sleep(0.2)
        return view


class Worker(Process):
    """`python -m trainer --server URL`: one supervisor with its child, on the CPU."""

    def __init__(self, server: Server, home: Path, arguments: list[str]) -> None:
        home.mkdir(parents=True, exist_ok=True)
        env = {"LMTUNE_TOKEN": server.token, "LMTUNE_HOME": str(home), "OMP_NUM_THREADS": "1"}
        arguments = ["--server", server.url, *arguments]
        super().__init__("trainer", arguments, env, home / "test-worker.log")

"""The whole app behind a real socket, in a thread of the test's process."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

import httpx
import uvicorn

from service import auth, command
from service.app import admit_token, create_app, open_parts
from service.settings import Settings
from studies.client import Client, WorkerClient
from tests.harness.process import PATIENCE, wait_for
from tests.service.world import LEASE


class Live:
    """`with Live(url, home) as live:` serves; `live.http` has no token, `live.api` has it."""

    def __init__(self, database_url: str, home: Path, **settings: object) -> None:
        said = {"lease_seconds": LEASE, "port": 0, **settings}
        self.settings = Settings(home=home, database_url=database_url, **said)
        self.parts = open_parts(self.settings)
        self.token = auth.home_token(home)
        admit_token(self.parts, self.token)
        self.app = create_app(self.settings, self.parts)
        self._listener = command._bind(self.settings)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._server = uvicorn.Server(command.make_config(self.app, self.settings))
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],))
        bearer = {"Authorization": f"Bearer {self.token}"}
        self.http = httpx.Client(base_url=self.url, timeout=30 * PATIENCE)
        self.api = httpx.Client(base_url=self.url, headers=bearer, timeout=30 * PATIENCE)
        self.client = Client(self.url, self.token)
        self.workers = WorkerClient(self.url, self.token)

    def __enter__(self) -> Live:
        self._thread.start()
        wait_for(lambda: self._server.started, 30, "start of the app")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for http in (self.http, self.api, self.client.http, self.workers.http):
            http.close()
        self.parts.bell.closing = True
        self.parts.bell.ring()
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()

"""The line between one worker and its server, for tests to cut: the storm's proxy in a thread."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Coroutine
from typing import Any

from tests.chaos.proxy import Link, Network, Weather
from tests.harness.lmtune import Server


class Line:
    """One link; its server is found anew for each connection."""

    def __init__(self, server: Server) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="line", daemon=True)
        self._thread.start()
        self._link = Link(Network(), lambda: server.port, random.Random(0))
        self._do(self._link.start())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._link.port}"

    def cut(self) -> None:
        """Breaks it off, both ways."""
        self._set(Weather(cut=True))

    def lose_answers(self) -> None:
        """Requests pass and are carried out; nothing comes back."""
        self._set(Weather(half_open=True))

    def slow_uploads(self, rate: float) -> None:
        """Uploads pass at a rate [bytes/s]."""
        self._set(Weather(upload_rate=rate))

    def upload_begun(self, seconds: float) -> bool:
        """Returns True in the middle of the next upload."""
        return self._do(self._link.upload_begun(seconds))

    def heal(self) -> None:
        self._set(Weather())

    def close(self) -> None:
        """Ends it and what is under way."""

        async def end() -> None:
            self._link.stop()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await asyncio.sleep(0)  # the transports' last callbacks

        self._do(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _set(self, weather: Weather) -> None:
        async def change() -> None:
            self._link.weather = weather
            if weather.cut:
                self._link.cut()

        self._do(change())

    def _do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

"""Pages of the dashboard in a browser, and waiting for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.harness.process import PATIENCE, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

    from tests.harness.lmtune import Server

# Every figure of the page is drawn: until then it moves.
DRAWN = "[...document.querySelectorAll('[data-figure]')].every((f) => f.data && f.layout)"


def new_context(browser: Browser, **options: Any) -> BrowserContext:
    """A browser's window with cookies of its own, as patient as the tests' other waits."""
    context = browser.new_context(**options)
    context.set_default_timeout(1_000 * 30 * PATIENCE)
    return context


def complains(message: ConsoleMessage) -> bool:
    """True for an error or a warning in the console that the page is to answer for.

    Not for Chromium's that a script was loaded early and not run within some seconds: where the
    machine has other work to do it runs later.
    """
    late = "was preloaded using link preload" in message.text
    return message.type in ("error", "warning") and not late


@contextmanager
def quiet_tab(browser: Browser, server: Server) -> Iterator[Page]:
    """One tab, signed in; nothing may be said in its console."""
    said: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        refused = "status of 422" in message.text  # Chromium says so of every refused form
        if complains(message) and not refused:
            said.append(f"{message.type}: {message.text} {message.location}")

    context = new_context(browser, viewport={"width": 1366, "height": 768})
    page = context.new_page()
    page.on("console", hear)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(server.client.login_link().url)
    yield page
    context.close()
    assert said == []


def until(page: Page, expression: str, seconds: float = 60) -> None:
    """Waits for the expression to hold (wait_for_function would need eval, which our CSP bans)."""
    wait_for(lambda: bool(page.evaluate(expression)), seconds, expression)

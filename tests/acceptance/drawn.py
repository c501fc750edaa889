"""Waiting for a page of the dashboard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.harness.process import PATIENCE, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

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


def until(page: Page, expression: str, seconds: float = 60) -> None:
    """Waits for the expression to hold (wait_for_function would need eval, which our CSP bans)."""
    wait_for(lambda: bool(page.evaluate(expression)), seconds, expression)

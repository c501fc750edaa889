"""Waiting for a page of the dashboard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.harness.process import wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Every figure of the page is drawn: until then it moves.
DRAWN = "[...document.querySelectorAll('[data-figure]')].every((f) => f.data && f.layout)"


def until(page: Page, expression: str, seconds: float = 60) -> None:
    """Waits for the expression to hold (wait_for_function would need eval, which our CSP bans)."""
    wait_for(lambda: bool(page.evaluate(expression)), seconds, expression)

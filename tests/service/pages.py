"""The pages of a read side that is made up, and what stands in them."""

from __future__ import annotations

from html.parser import HTMLParser

from fastapi import FastAPI
from starlette.testclient import TestClient

from service import problems
from service.routes import dashboard, drafts, events, trials
from service.routes.pulse import Pulse

EVIL = "<img src=x onerror=alert(1)>'\"{{ 7*7 }}</script>"


def client_of(read) -> TestClient:
    """A client of the pages, without the gate."""
    app = FastAPI()
    app.state.reading = read
    app.state.pulse = Pulse()
    problems.install(app)
    for room in (dashboard, trials, drafts, events):
        app.include_router(room.router)
    return TestClient(app, raise_server_exceptions=False)


class Tags(HTMLParser):
    """The start tags of a page, with their attributes; and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def ids(self):
        return [attrs["id"] for _, attrs in self.tags if "id" in attrs]

    def by_id(self, name):
        return next(attrs for _, attrs in self.tags if attrs.get("id") == name)

"""Every route of an app, also of the routers that FastAPI includes lazily."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts


def all_routes(app: FastAPI) -> set[tuple[str, str]]:
    """Returns (method, path) of each route; HEAD goes with its GET and is left out."""
    return {
        (method, route.path)
        for route in iter_route_contexts(app.routes)
        if route.path is not None
        for method in (route.methods or set()) - {"HEAD"}
    }

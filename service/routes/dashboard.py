"""The pages that people see in a browser; with them go their files and figures.

A page is whole as it is sent. What changes while trials run carries `data-live` and an id: on a
pushed change the browser asks for the page again and swaps those parts (static/live.js).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response

from service.figures import FIGURES
from service.routes import assets, plots, table
from service.routes.reading import Read
from service.routes.summary import Summary, spark, told
from service.routes.templating import TEMPLATES, to_yaml
from studies import fleet, wire
from studies.errors import LmtuneError, NotFound
from studies.trial import StudyState

_PER_PAGE: Final = 50  # studies on one page of the overview
_HAPPENED: Final = 20  # events on a study's page
_NAMED: Final = 4  # workers on a study's page
_EXAMPLE: Final = """\
name: my-first-study
data: {path: corpus.txt}
search:
  learning_rate: {log: [1.0e-4, 1.0e-1]}
  dropout: {uniform: [0.0, 0.5]}
budget: {trials: 16, wall_time: 10m}
"""

pages = APIRouter(include_in_schema=False)


@pages.get("/")
def overview(
    request: Request, read: Read, cursor: str | None = None, q: str = "", state: str = ""
) -> Response:
    """Returns the list of studies, those that are searched for, and the workers."""
    wanted = StudyState(state) if state in StudyState.__members__ else None
    found = read.studies(False, cursor, _PER_PAGE, q.strip(), wanted)
    summaries = [Summary(view) for view in found.items]
    context = {
        "studies": summaries,
        "sparks": {s.view.name: spark(read.sparks.of(s.view.name, s.direction)) for s in summaries},
        "outlays": {s.view.name: read.outlays.of(s.view.name) for s in summaries},
        "search": q,
        "state": wanted.value if wanted else "",
        "states": [state.value for state in StudyState],
        "pages": urlencode({"q": q, "state": state}),
        "older": found.next,
        "newest": cursor is None,
        "workers": [worker for worker in read.workers() if worker.state != "gone"],
        "counts": read.worker_counts(),
        "example": _EXAMPLE,
        "server": str(request.base_url).rstrip("/"),
    }
    return page(request, "overview.html", context)


@pages.get("/studies/{name}")
def study(request: Request, name: str, read: Read) -> Response:
    """Returns the page of one study."""
    try:
        view = read.study(name)
    except NotFound as error:
        return not_found(request, error)
    summary = Summary(view)
    baseline = read.watch.baseline(name)
    best = read.best(name) if view.best else None
    context = {
        "study": summary,
        "baseline": baseline,
        "gain": summary.gain(baseline),
        "best": best,
        "recipe": recipe_text(best) if best else "",
        "checkpoint": read.standing(name, best.number).checkpoint if best else None,
        "figures": FIGURES,
        "events": [(event, told(event)) for event in read.history(name, None, _HAPPENED).items],
        "workers": read.workers(_NAMED, study=name),
        "there": fleet.number(read.worker_counts(), "idle", "busy"),
    }
    return page(request, "study.html", context)


def recipe_text(trial: wire.TrialDetail) -> str:
    """Returns the trial's recipe as YAML."""
    return to_yaml(trial.recipe.model_dump(mode="json", by_alias=True, exclude_none=True))


def not_found(request: Request, error: LmtuneError) -> Response:
    """Returns the page that says what is missing, with status 404."""
    context = {"title": "Not here", "detail": str(error)}
    return page(request, "problem.html", context, status_code=404)


def page(
    request: Request, template: str, context: Mapping[str, Any], status_code: int = 200
) -> Response:
    """Returns a page."""
    headers = {"Cache-Control": "no-store"}  # the back button shows what is, not what was
    return TEMPLATES.TemplateResponse(
        request, template, dict(context), status_code=status_code, headers=headers
    )


router = APIRouter()
for part in (pages, plots.router, table.router, assets.router):
    router.include_router(part)

"""The report of a study: one page that stands alone, to be kept, sent and printed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from service.figures import FIGURES, StudyData
from service.figures.findings import findings
from service.figures.svg import svg
from service.routes.assets import inlined
from service.routes.dashboard import not_found, recipe_text
from service.routes.reading import Read
from service.routes.summary import Summary
from service.routes.templating import TEMPLATES
from studies import wire
from studies.errors import NotFound
from studies.spec import StudySpec

_FIGURES: Final = ("importances", "history", "curves", "rates", "slices")
_ENVIRONMENT: Final = (
    "device",
    "device_name",
    "driver",
    "torch",
    "python",
    "threads",
    "git_commit",
)

api = APIRouter(prefix="/api/v1/studies/{name}", tags=["studies"])
pages = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class Drawing:
    """One figure of a report."""

    title: str
    svg: str


@api.get("/report", response_class=HTMLResponse)
def get_report(name: str, request: Request, read: Read) -> Response:
    """Returns the study's report: one HTML file that stands alone."""
    view = read.study(name)
    summary, baseline = Summary(view), read.watch.baseline(name)
    data = replace(
        read.watch.snapshot(name).data, importances=read.watch.importances(name), baseline=baseline
    )
    best = read.best(name) if view.best else None
    context = {
        "study": summary,
        "now": datetime.now(UTC),
        "best": best,
        "baseline": baseline,
        "gain": summary.gain(baseline),
        "found": findings(data, seeded=seeds_differ(summary.spec)),
        "seeded": seeds_differ(summary.spec),
        "cost": read.cost(name),
        "drawings": drawings(data, summary.spec),
        "environment": environment(best) if best else {},
        "recipe": recipe_text(best) if best else "",
        "icon": inlined("favicon.svg"),
    }
    headers = {"Cache-Control": "no-store"}
    return TEMPLATES.TemplateResponse(request, "report.html", context, headers=headers)


@pages.get("/studies/{name}/report")
def report_page(name: str, request: Request, read: Read) -> Response:
    """Returns the same for a browser."""
    try:
        return get_report(name, request, read)
    except NotFound as error:
        return not_found(request, error)


def seeds_differ(spec: StudySpec) -> bool:
    """True where each trial starts from a seed of its own."""
    return spec.train.seed is None


def drawings(data: StudyData, spec: StudySpec) -> list[Drawing]:
    """Returns the figures that have something to show."""
    kinds = [kind for kind in _FIGURES if kind != "rates" or "learning_rate" in spec.search]
    drawn = [(FIGURES[kind].title, FIGURES[kind].draw(data)) for kind in kinds]
    return [Drawing(title, svg(figure, title)) for title, figure in drawn if figure.data]


def environment(trial: wire.TrialDetail) -> dict[str, str]:
    """Returns where the trial's last attempt ran."""
    told = [attempt.environment for attempt in trial.attempts if attempt.environment]
    return {name: str(told[-1][name]) for name in _ENVIRONMENT if told and told[-1].get(name)}


router = APIRouter()
for part in (api, pages):
    router.include_router(part)

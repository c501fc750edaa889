"""The pages of trials: one alone, or some beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse

from service.figures import several
from service.routes.dashboard import not_found, page, recipe_text
from service.routes.plots import ANSWERS, JSON, points
from service.routes.reading import Read
from service.routes.summary import Summary
from studies import wire
from studies.errors import NotFound
from studies.recipe import KNOBS
from studies.trial import ENDS, Outcome, TrialState

_STATES: Final = {  # why a trial is where it is, where it says nothing itself
    TrialState.WAITING: "waits for a worker",
    TrialState.RUNNING: "a worker trains it",
    TrialState.PAUSED: "rests at its checkpoint",
    TrialState.COMPLETE: "trained to its end",
    TrialState.PRUNED: "stopped early",
    TrialState.FAILED: "failed",
    TrialState.CANCELLED: "taken out by a person",
}
_MANY: Final = 6  # trials beside each other; a figure has so many colours
Chosen = Annotated[
    str, Query(pattern=r"^[0-9]{1,9}(,[0-9]{1,9}){1,5}$", description="two to six numbers, as 3,5")
]

pages = APIRouter(include_in_schema=False)
api = APIRouter(prefix="/api/v1/studies/{name}", tags=["figures"])


@pages.get("/studies/{name}/trials/{number}")
def trial(request: Request, name: str, number: int, read: Read) -> Response:
    """Returns the page of one trial."""
    try:
        view, detail = read.study(name), read.trial(name, number)
    except NotFound as error:
        return not_found(request, error)
    context = {
        "study": Summary(view),
        "trial": detail,
        "standing": read.standing(name, number),
        "why": why(detail),
        "environment": environment(detail),
        "total": sum(view.counts.values()),
        "last": detail.curve[-1] if detail.curve else None,
        "knobs": KNOBS,
        "recipe": recipe_text(detail),
    }
    return page(request, "trial.html", context)


@pages.get("/studies/{name}/trials/{number}/recipe.yaml")
def recipe(name: str, number: int, read: Read) -> Response:
    """Returns the trial's recipe, which a worker trains alone from a file."""
    return PlainTextResponse(recipe_text(read.trial(name, number)))


@pages.get("/studies/{name}/compare")
def compare(request: Request, name: str, read: Read, trials: str = "") -> Response:
    """Returns two to six trials beside each other."""
    try:
        view = read.study(name)
        chosen = [read.trial(name, number) for number in _numbers(trials)]
    except NotFound as error:
        return not_found(request, error)
    study = Summary(view)
    rows = compared(chosen, study.spec.objective.metric)
    context = {"study": study, "trials": chosen, "rows": rows, "numbers": trials}
    return page(request, "compare.html", context)


@api.get("/comparison", response_class=Response, responses={200: ANSWERS[200]})
def get_comparison(name: str, trials: Chosen, read: Read) -> Response:
    """Returns the learning curves of two to six trials as plotly JSON."""
    study = Summary(read.study(name))
    metric = study.spec.objective.metric
    curves = {
        f"trial {number}": points(read.trial(name, number).curve, metric)
        for number in _numbers(trials)
    }
    figure = several(curves, metric, read.watch.baseline(name), study.spec.objective.direction)
    return Response(figure.to_json(), media_type=JSON, headers={"Cache-Control": "no-cache"})


def _numbers(trials: str) -> list[int]:
    """Returns the numbers in a text like 3,5; what is no number is passed over."""
    known = [int(part) for part in trials.split(",") if part.isdecimal() and len(part) < 10]
    return list(dict.fromkeys(known))[:_MANY]


def why(trial: wire.TrialDetail) -> str:
    """Returns why the trial stands where it stands, in words."""
    last = trial.attempts[-1] if trial.attempts else None
    ended = last and last.outcome in set(Outcome)
    meaning = ENDS[Outcome(str(last.outcome))].meaning if last and ended else ""
    said = meaning if trial.state.terminal and meaning else _STATES[trial.state]
    return f"{said}: {trial.reason}" if trial.reason else said


def environment(trial: wire.TrialDetail) -> dict[str, Any]:
    """Returns what the last attempt that told of its environment said, without what is nested."""
    told = next((a.environment for a in reversed(trial.attempts) if a.environment), {})
    return {k: v for k, v in told.items() if v is not None and not isinstance(v, dict | list)}


@dataclass(frozen=True)
class Compared:
    """One line of a comparison: a value for each trial, and whether they differ."""

    name: str
    values: list[Any]
    differ: bool


def compared(trials: Sequence[wire.TrialDetail], metric: str) -> list[Compared]:
    """Returns the lines: the objective, how far each came, then each searched knob."""
    knobs = list(dict.fromkeys(name for trial in trials for name in trial.params))
    lines: list[tuple[str, list[Any]]] = [
        (metric, [_value(trial, metric) for trial in trials]),
        ("state", [trial.state.lower() for trial in trials]),
        ("step", [trial.step for trial in trials]),
        *((knob, [trial.params.get(knob) for trial in trials]) for knob in knobs),
        ("seed", [trial.recipe.train.seed for trial in trials]),
    ]
    return [
        Compared(name, values, any(value != values[0] for value in values))
        for name, values in lines
    ]


def _value(trial: wire.TrialDetail, metric: str) -> float | None:
    """Returns the trial's value, or what it reported last."""
    if trial.value is not None or not trial.curve:
        return trial.value
    return trial.curve[-1].metrics.get(metric)


router = APIRouter()
for part in (pages, api):
    router.include_router(part)

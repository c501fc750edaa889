"""A study before it is made: checked, its space drawn from, its cost estimated. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from service.dispatch.context import Context
from service.store import reports, studies
from service.store.database import Connection
from service.tuning import preview, samplers
from studies.drafts import Bar, DraftView
from studies.idle import idle
from studies.spec import StudySpec, parse_spec

_LOOKED_AT: Final = 20  # newest studies, for one of the same kind of model


def draft(ctx: Context, document: Mapping[str, Any]) -> DraftView:
    """Returns what the study would be like; raises InvalidInput where it could not be made."""
    spec = parse_spec(document)
    samplers.check(spec)
    drawn = preview.draw(spec) if spec.search else [{}]
    tokens = spec.budget.trials * sum(_tokens(spec, params) for params in drawn) // len(drawn)
    speed = ctx.database.read(lambda conn: _speed(conn, ctx, spec))
    return DraftView(
        spec=spec.document(),
        yaml=spec.yaml(),
        sampled={
            param.name: [Bar(label=a, count=n) for a, n in preview.histogram(param, drawn)]
            for param in spec.space
        },
        notes=[str(notice) for notice in idle(spec)],
        trials=spec.budget.trials,
        tokens=tokens,
        tokens_per_second=speed,
        seconds=_seconds(spec, tokens, speed),
    )


def _tokens(spec: StudySpec, params: Mapping[str, Any]) -> int:
    """Returns the tokens that a trial of these values trains on, if it does not end early."""
    train = spec.train
    sizes = {name: params.get(name, getattr(train, name)) for name in ("batch_size", "accumulate")}
    length = params.get("sequence_length", train.sequence_length)
    return int(train.steps * sizes["batch_size"] * sizes["accumulate"] * length)


def _seconds(spec: StudySpec, tokens: int, speed: float | None) -> float | None:
    if not speed:
        return None
    return min(tokens / speed, spec.budget.wall_time or float("inf"))


def _speed(conn: Connection, ctx: Context, spec: StudySpec) -> float | None:
    """Returns the training speed that the newest study of this kind of model reports [tokens/s]."""
    for row in studies.page(conn, archived=False, before=None, limit=_LOOKED_AT):
        body = reports.newest_body(conn, row.id)
        if body is None or ctx.studies.spec(row).model.kind != spec.model.kind:
            continue
        tokens, seconds = reports.spent(body)
        if tokens and seconds:
            return tokens / seconds
    return None

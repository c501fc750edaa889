"""What people change of a study that goes on: its budget, its workers, a narrower search space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from service.dispatch import studies as lives
from service.dispatch.context import Context
from service.dispatch.enqueue import in_space
from service.store import studies
from service.store.database import Row, Tx
from studies.changes import BudgetChange, ChangeBody
from studies.errors import Conflict, InvalidInput
from studies.explain import near
from studies.space import CategoricalParam, Entry, Param, SearchSpace
from studies.spec import StudySpec, parse_spec
from studies.trial import StudyState

_AUDITED: Final = {
    "budget": "budget_changed",
    "resources": "workers_changed",
    "search": "space_narrowed",
}


def change(tx: Tx, ctx: Context, name: str, body: ChangeBody) -> Row:
    """Returns the study with another budget, other workers or a narrower space.

    Trials that are there stay; those that run with fewer workers asked for go on to their ends.

    Raises:
        InvalidInput: the budget is used up already, or the space would not be narrower.
        Conflict: the study takes no more trials.
    """
    study = lives.find(tx, name)
    if study.state not in (StudyState.RUNNING, StudyState.PAUSED):
        raise Conflict(f"study {name} is {study.state}; create another like it instead")
    spec = ctx.studies.spec(study)
    budget = _budget(tx, study, spec, body.budget)
    search = narrowed(spec, body.search)
    before = spec.document()
    resources = {**before.get("resources", {}), **body.resources.model_dump(exclude_unset=True)}
    parts = {"budget": budget, "resources": resources, "search": search}
    changed = parse_spec({**before, **parts})
    if changed == spec:
        return study
    _audit(tx, study, before, changed.document())
    row = studies.update(tx, study.id, spec=changed.document())
    tx.on_commit(ctx.wake)
    return lives.advance(tx, ctx, row)


def narrowed(spec: StudySpec, asked: Mapping[str, Entry]) -> dict[str, Any]:
    """Returns the study's `search` section with these ranges and choices; raises InvalidInput."""
    search = dict(spec.document().get("search", {}))
    for name, entry in asked.items():
        search[name] = {**search.get(name, {}), **_part(spec.space, name, entry)}
    for name, entry in search.items():
        if "when" in entry:
            search[name] = {**entry, "when": _conditions(name, entry["when"], search)}
    return search


def _part(space: SearchSpace, name: str, entry: Entry) -> dict[str, Any]:
    """Returns the new range or choices of one knob, which lie in the old."""
    param = next((param for param in space if param.name == name), None)
    if param is None:
        remedy = near(name, space.names) or f"searched are {', '.join(space.names)}"
        raise InvalidInput.of(f"search.{name}", "is not searched in this study", remedy)
    kind = _kind(param)
    given = entry.model_dump(mode="json", exclude_unset=True)
    if set(given) != {kind}:
        other = next((key for key in given if key != kind), kind)
        raise InvalidInput.of(f"search.{name}.{other}", "cannot be changed", f"give {kind} only")
    where = f"search.{name}.{kind}"
    return {kind: [in_space(where, param, value) for value in given[kind]]}


def _kind(param: Param) -> str:
    if isinstance(param, CategoricalParam):
        return "choice"
    return "log" if getattr(param, "log", False) else "uniform"


def _conditions(name: str, when: Mapping[str, Any], search: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a knob's conditions with the values that are still among the choices."""
    kept = {}
    for governor, values in when.items():
        wanted = values if isinstance(values, list) else [values]
        kept[governor] = [value for value in wanted if value in search[governor]["choice"]]
        if not kept[governor]:
            message = f"{name} would never be searched"
            remedy = f"keep one of {', '.join(map(str, wanted))}"
            raise InvalidInput.of(f"search.{governor}.choice", message, remedy)
    return kept


def _budget(tx: Tx, study: Row, spec: StudySpec, asked: BudgetChange) -> dict[str, Any]:
    """Returns the study's `budget` section as asked; raises InvalidInput where it is used up."""
    said = asked.model_dump(exclude_unset=True)
    if said.get("trials", 1) is None:
        raise InvalidInput.of("budget.trials", "is null", "give a number, or leave it out")
    used = lives.slots(studies.counts(tx.conn, study.id))
    if said.get("trials", used) < used:
        message = f"{used} trials are there already"
        raise InvalidInput.of("budget.trials", message, f"give at least {used}, or stop the study")
    ran, limit = lives.running_seconds(study, tx.t), said.get("wall_time")
    if limit is not None and limit <= ran:
        message = f"the study has run for {ran:.0f} s already"
        raise InvalidInput.of("budget.wall_time", message, "give more, or stop the study")
    return {**spec.budget.model_dump(mode="json", exclude_unset=True), **said}


def _audit(tx: Tx, study: Row, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Writes what was changed: of each part only the fields that are others now."""
    for part, kind in _AUDITED.items():
        old, new = before.get(part, {}), after.get(part, {})
        fields = [name for name in new if new[name] != old.get(name)]
        if fields:
            said = {name: [old.get(name), new[name]] for name in fields}
            studies.audit(tx, study.id, kind, changes=said)

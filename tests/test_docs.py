"""The docs say what the code does: settings, routes, codes, knobs, states, files and links."""

from __future__ import annotations

import re
import tomllib
from http import HTTPStatus
from pathlib import Path
from typing import get_args

import pytest

from studies.errors import BY_CODE
from studies.parts import Sampler, Scheduler
from studies.trial import Decision, Outcome, StudyState, TrialState
from tests.harness import lifecycle
from tests.harness.tree import README, TREE, tree

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
MAKEFILE = (ROOT / "Makefile").read_text()


def page(name: str) -> str:
    return (DOCS / name).read_text()


def headings(text: str) -> set[str]:
    return set(re.findall(r"^#+ +`?(.+?)`?$", text, flags=re.M))


def named(text: str) -> set[str]:
    """What stands in `backticks`."""
    return set(re.findall(r"`([^`\n]+)`", text))


def test_every_setting_is_in_operations_and_nothing_else_is() -> None:
    from service.settings import Settings

    documented = {n for n in named(page("operations.md")) if re.fullmatch(r"LMTUNE_[A-Z_]+", n)}
    settings = {f"LMTUNE_{name.upper()}" for name in Settings.model_fields}
    code = "".join(p.read_text() for r in ("studies", "trainer") for p in (ROOT / r).rglob("*.py"))
    assert settings - documented == set()
    assert {name for name in documented - settings if name not in code} == set()


def test_every_route_has_its_heading_and_every_heading_its_route(tmp_path: Path) -> None:
    from service.app import create_app, open_parts
    from service.settings import Settings
    from tests.harness.routes import all_routes

    settings = Settings(home=tmp_path)
    parts = open_parts(settings)
    app = create_app(settings, parts)
    parts.ctx.database.close()
    routes = {f"{method} {path}" for method, path in all_routes(app)}
    written = {h for h in headings(page("http-api.md")) if re.match(r"[A-Z]+ /", h)}
    assert written == routes


def test_every_problem_code_is_explained() -> None:
    assert BY_CODE.keys() - named(page("http-api.md")) == set()


def test_statuses_in_the_table_of_problems_are_the_servers() -> None:
    from service.problems import status_of

    def status(code: str) -> int:
        if code not in BY_CODE:  # HTTP's own, as method_not_allowed
            return HTTPStatus[code.upper()].value
        return status_of(BY_CODE[code]("" if code != "invalid" else ()))

    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", page("http-api.md"), flags=re.M)
    assert {code: int(said) for code, said in rows} == {code: status(code) for code, _ in rows}


@pytest.mark.parametrize("part", [Sampler, Scheduler])
def test_every_sampler_and_scheduler_is_explained(part: type[Sampler | Scheduler]) -> None:
    kinds = set(get_args(part.model_fields["kind"].annotation))
    text = page("search-space.md")
    assert kinds - (headings(text) | named(text)) == set()


def test_the_diagrams_and_tables_of_the_life_cycle_are_the_codes() -> None:
    assert lifecycle.page() == lifecycle.PAGE.read_text(), "make docs writes it anew"
    made = {name for _, name, _ in lifecycle.PART.findall(lifecycle.PAGE.read_text())}
    assert made == lifecycle.parts().keys()


def test_the_diagrams_parse_as_arrows_between_known_states() -> None:
    """Mermaid takes a `;` for the end of a line; a label has none."""
    lines = re.findall(r"^    (.*)$", page("trial-lifecycle.md"), flags=re.M)
    names = "|".join([*TrialState, *StudyState, *Outcome, "live", re.escape("[*]")])
    wrong = [
        line for line in lines if not re.fullmatch(rf"({names}) --> ({names})(: [^:;]+)?", line)
    ]
    assert wrong == []


@pytest.mark.parametrize("kind", [TrialState, StudyState, Outcome, Decision])
def test_every_state_outcome_and_decision_is_explained(kind: type[TrialState]) -> None:
    text = page("trial-lifecycle.md")
    assert [str(word) for word in kind if not re.search(rf"\b{word}\b", text)] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_and_make_recipes_lead_somewhere(path: Path) -> None:
    text = path.read_text()
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert [link for link in links if not (path.parent / link).exists()] == []
    files = {n for n in named(text) if re.fullmatch(r"(docs|studies|service|trainer)/[\w./-]+", n)}
    assert [name for name in files if not (ROOT / name).exists()] == []
    recipes = {word for name in named(text) for word in re.findall(r"^make ([a-z-]+)$", name)}
    known = set(re.findall(r"^([a-z-]+)[:%]", MAKEFILE, flags=re.M))
    assert {r for r in recipes if r not in known and not r.startswith("bench-")} == set()


def test_the_tree_in_the_readme_is_that_of_the_modules() -> None:
    found = TREE.search(README.read_text())
    assert found, "the README has no tree"
    assert found[0] == tree(), "make docs writes it anew"


def test_every_dependency_has_a_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = {
        re.match(r"[\w-]+", need)[0].lower()
        for need in [*project["dependencies"], *(n for extra in extras for n in extra)]
        if not need.startswith("lmtune")
    }
    table = page("decisions/0001-dependencies.md").lower()
    said = set(re.findall(r"[\w-]+", " ".join(re.findall(r"^\|[^|]*\|([^|]*)\|", table, re.M))))
    types = {name for name in wanted if name.startswith("types-")}
    assert (wanted - types) - said == set()
    assert said - wanted - {"package", "types-", "binary", "---", ""} == set()


def test_decisions_are_numbered_without_gaps_and_have_their_parts() -> None:
    pages = sorted((DOCS / "decisions").glob("*.md"))
    assert [int(p.name[:4]) for p in pages] == list(range(1, len(pages) + 1))
    for path in pages:
        parts = re.findall(r"^\*\*(\w+)\.\*\*", path.read_text(), flags=re.M)
        assert parts == ["Context", "Decision", "Consequence"], path.name
        assert f"decisions/{path.name}" in page("architecture.md"), path.name


def test_the_changelog_has_a_place_for_what_comes_next() -> None:
    assert "Unreleased" in (ROOT / "CHANGELOG.md").read_text()

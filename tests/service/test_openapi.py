"""The OpenAPI document: every route, every error, and examples that work as they stand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.routes import all_routes
from tests.service.live import Live


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with Live("", tmp_path_factory.mktemp("openapi")) as live:
        yield live


@pytest.fixture(scope="module")
def document(live: Live) -> dict[str, Any]:
    return live.api.get("/openapi.json").json()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from references(child)


def test_every_route_of_the_api_is_there(live: Live, document) -> None:
    said = {(method, path) for method, path, _ in operations(document)}
    routes = {(m, p) for m, p in all_routes(live.app) if p.startswith("/api/")}
    assert routes <= said


def test_every_operation_says_what_it_does_and_that_it_may_fail(document) -> None:
    for method, path, operation in operations(document):
        assert operation["summary"], (method, path)
        assert operation["description"].endswith("."), (method, path)
        problem = operation["responses"]["default"]["content"]
        assert set(problem) == {"application/problem+json"}, (method, path)
    ids = [operation["operationId"] for *_, operation in operations(document)]
    assert len(ids) == len(set(ids))


def test_every_reference_leads_somewhere(document) -> None:
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(references(document)) <= known


def example(document: dict[str, Any], path: str) -> Any:
    body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    name = body["schema"]["$ref"].rpartition("/")[2]
    return document["components"]["schemas"][name]["examples"][0]


def test_the_examples_work_as_they_stand(live: Live, document) -> None:
    study = live.api.post("/api/v1/studies", json=example(document, "/api/v1/studies"))
    assert study.status_code == 201, study.text
    path = "/api/v1/studies/{name}/trials"
    trial = live.api.post(path.format(name=study.json()["name"]), json=example(document, path))
    assert trial.status_code == 201, trial.text

"""Pages, files, figures and events, on a read side that is made up."""

import gzip
import json
import re
from html.parser import HTMLParser

import anyio
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service import problems
from service.routes import dashboard, events
from service.routes.summary import Summary
from service.routes.templating import TEMPLATES, duration, number
from studies.errors import NotFound, Unavailable
from studies.recipe import Recipe
from studies.trial import StudyState, TrialState
from tests.service.stand_in import StandIn

EVIL = "<img src=x onerror=alert(1)>'\"{{ 7*7 }}</script>"


@pytest.fixture
def read():
    return StandIn()


@pytest.fixture
def client(read):
    app = FastAPI()
    app.state.reading = read
    problems.install(app)
    app.include_router(dashboard.router)
    app.include_router(events.router)
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


PAGES = ["/", "/studies/quickstart", "/studies/quickstart/trials/2", "/studies/none"]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_stands_without_any_outside_host_or_inline_script(client, path):
    page = Tags(client.get(path).text)
    for tag, attrs in page.tags:
        for name in ("src", "href", "data-plotly", "data-events", "data-figure", "data-trials"):
            assert attrs.get(name) is None or attrs[name] == "" or attrs[name][0] in "/#", attrs
        assert not [name for name in attrs if name.startswith("on") or name == "style"]
        assert tag != "style"
        assert tag != "script" or attrs.get("src")
    assert len(page.ids()) == len(set(page.ids()))


@pytest.mark.parametrize("path", PAGES)
def test_a_page_can_be_heard(client, path):
    page = Tags(client.get(path).text)
    assert dict(page.tags)["html"] == {"lang": "en"}
    assert [tag for tag, _ in page.tags].count("h1") == 1
    for tag, attrs in page.tags:
        assert tag != "img" or "alt" in attrs
        assert tag != "svg" or attrs["aria-label"]
        if label := attrs.get("aria-labelledby"):
            assert label in page.ids()


def test_the_overview_says_where_each_study_stands(client):
    text = " ".join(Tags(client.get("/").text).text.split())
    for said in ("quickstart", "running", "11 of 16 trials", "Best validation loss", "busy"):
        assert said in text


def test_an_empty_overview_teaches_the_first_step(client, read):
    read.names = []
    text = Tags(client.get("/").text).text
    assert "No studies yet" in text
    assert "lmtune create study.yaml" in text


def test_the_study_page_offers_what_the_state_allows(client, read):
    def enabled():
        page = Tags(client.get("/studies/quickstart").text)
        return {name for name in ("pause", "resume", "stop") if "disabled" not in page.by_id(name)}

    assert enabled() == {"pause", "stop"}
    read.state = StudyState.PAUSED
    assert enabled() == {"resume", "stop"}
    read.state = StudyState.ENDED
    assert enabled() == set()


def test_everything_people_wrote_is_only_text(client, read):
    read.description = EVIL
    for path in ("/", "/studies/quickstart"):
        page = client.get(path).text
        assert Tags(page).text.count(EVIL) >= 1
        assert not [tag for tag, attrs in Tags(page).tags if "onerror" in attrs]


def test_an_unknown_study_or_trial_is_a_page_with_404(client):
    for path in ("/studies/none", "/studies/quickstart/trials/99"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert "Not here" in answer.text


def test_a_study_without_a_trial_has_a_page(client, read):
    read.done, read.step = 0, 0
    assert "Stands here as soon as" in client.get("/studies/quickstart").text
    assert client.get("/studies/quickstart/trials/0").status_code == 200
    for kind in client.get("/api/v1/studies/quickstart/figures").json():
        assert client.get(f"/api/v1/studies/quickstart/figures/{kind}").status_code == 200


def test_the_recipe_of_the_best_trial_can_be_trained_from(client, read):
    import yaml

    best = read.best("quickstart")
    text = client.get(f"/studies/quickstart/trials/{best.number}/recipe.yaml").text
    assert Recipe.model_validate(yaml.safe_load(text)) == best.recipe
    page = client.get("/studies/quickstart").text
    assert f"learning_rate: {best.params['learning_rate']}" in page


def test_a_figure_is_drawn_again_only_after_a_change(client, read):
    url = "/api/v1/studies/quickstart/figures/history"
    first = client.get(url)
    assert first.headers["content-type"] == "application/json"
    assert first.json()["data"]
    etag = first.headers["etag"]
    calls = read.calls
    assert client.get(url, headers={"If-None-Match": etag}).status_code == 304
    client.get(url.replace("history", "curves"))
    assert read.calls == calls  # the second figure is drawn from what the first has read
    read.step += 30
    assert client.get(url, headers={"If-None-Match": etag}).status_code == 200
    assert read.calls > calls


def test_figures_answer_for_what_is_not_there(client):
    assert client.get("/api/v1/studies/none/figures").status_code == 404
    assert client.get("/api/v1/studies/none/figures/history").status_code == 404
    assert client.get("/api/v1/studies/quickstart/figures/pie").status_code == 404
    assert client.get("/api/v1/studies/quickstart/figures/slices?columns=0").status_code == 422


def test_a_trials_figure_shows_both_losses(client):
    figure = client.get("/api/v1/studies/quickstart/trials/5/figure").json()
    names = [trace["name"] for trace in figure["data"]]
    assert names == ["validation loss", "train loss", "unigram 3.31"]


def test_plotly_comes_from_its_package_zipped_and_kept(client):
    url = re.search(r'data-plotly="([^"]+)"', client.get("/studies/quickstart").text).group(1)
    with client.stream("GET", url, headers={"Accept-Encoding": "gzip"}) as answer:
        raw = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == "gzip"
    assert "immutable" in answer.headers["cache-control"]
    assert len(raw) < 2_000_000
    assert gzip.decompress(raw)[:200].decode().strip().startswith("/**")
    again = client.get(url, headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


def test_own_files_are_asked_for_again_and_a_path_leads_nowhere(client):
    answer = client.get("/static/main.js")
    assert answer.headers["content-type"].startswith("text/javascript")
    assert answer.headers["cache-control"] == "no-cache"
    for name in ("nothing.js", "..%2fsettings.py", "%2e%2e/app.py", "..\\app.py", "style.css%00"):
        assert client.get(f"/static/{name}").status_code == 404


def test_every_file_that_a_script_or_page_names_is_there(client):
    for name in ("main.js", "style.css", "favicon.svg"):
        assert client.get(f"/static/{name}").status_code == 200
    todo, seen = ["main.js"], set()
    while todo:
        name = todo.pop()
        seen.add(name)
        found = re.findall(r'from "\./([a-z]+\.js)"', client.get(f"/static/{name}").text)
        todo += [other for other in found if other not in seen]
    assert all(client.get(f"/static/{name}").status_code == 200 for name in seen)


def test_the_sign_in_page_needs_no_script(client):
    page = TEMPLATES.get_template("login.html").render(plotly_url="", error=EVIL)
    tags = Tags(page).tags
    assert not [tag for tag, _ in tags if tag == "script"]
    assert EVIL in Tags(page).text
    assert ("form", {"class": "card login", "method": "post", "action": "/login"}) in tags


def taken(look, count, act=lambda n: None):
    """Returns the first events that `changes` yields; `act` is called after each."""

    async def take():
        found = []
        stream = events.changes(look, anyio.Event(), period=0.001)
        async for event in stream:
            found.append(json.loads(event.data))
            act(len(found))
            if len(found) == count:
                break
        await stream.aclose()
        return found

    return anyio.run(take)


def test_an_event_tells_the_state_first_and_then_every_change():
    state = {"revision": 1}
    looks = []

    def look():
        looks.append(1)
        if len(looks) == 3:
            state["revision"] = 2
        return dict(state)

    assert taken(look, 2) == [{"revision": 1}, {"revision": 2}]
    assert len(looks) == 3


def test_events_outlive_a_busy_database_and_end_with_the_study():
    answers = iter([{"n": 1}, Unavailable("busy"), {"n": 2}, NotFound("gone")])

    def look():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert taken(look, 3) == [{"n": 1}, {"n": 2}]


def test_events_end_when_the_server_goes_down():
    async def close():
        closing = anyio.Event()
        async for _ in events.changes(dict, closing, period=60):
            closing.set()

    anyio.run(close)


def test_events_of_an_unknown_study_are_a_404(client):
    assert client.get("/api/v1/studies/none/events").status_code == 404


def test_the_time_left_follows_the_trials_that_are_over_and_the_wall_time(read):
    view = read.study("quickstart")
    assert Summary(view).finished == 11
    assert Summary(view).left_seconds == pytest.approx(141 / 11 * 5)
    late = view.model_copy(update={"running_seconds": 590.0})
    assert Summary(late).left_seconds == pytest.approx(10.0)
    ended = view.model_copy(update={"state": StudyState.ENDED})
    assert Summary(ended).left_seconds is None


def test_the_progress_bar_is_full_when_the_budget_is(read):
    view = read.study("quickstart")
    full = view.model_copy(update={"counts": {TrialState.COMPLETE: 10, TrialState.PRUNED: 6}})
    last = Summary(full).segments[-1]
    assert last.start + last.width == pytest.approx(100.0)
    assert Summary(full).progress == "16 of 16 trials over: 10 complete, 6 pruned"


def test_numbers_and_durations_in_words():
    assert [number(v) for v in (None, 3, 0.00123456, "l1", True)] == [
        "–",
        "3",
        "0.0012346",
        "l1",
        "True",
    ]
    assert number(float("nan")) == "not a number"
    assert [duration(s) for s in (None, 5.9, 65, 3_700, 90_000)] == [
        "–",
        "5s",
        "1m 05s",
        "1h 01m",
        "1d 01h",
    ]

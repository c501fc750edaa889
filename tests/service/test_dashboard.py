"""Pages, files, figures and events, on a read side that is made up."""

import gzip
import re

import pytest
from plotly.offline import get_plotlyjs_version

from service.routes import assets
from service.routes.summary import Summary, spark
from service.routes.templating import TEMPLATES, duration, number, percent, spelled
from studies.recipe import Recipe
from studies.trial import StudyState, TrialState
from tests.service.pages import EVIL, Tags

PAGES = [
    "/",
    "/studies/quickstart",
    "/studies/quickstart/trials/2",
    "/studies/quickstart/compare?trials=2,3,5",
    "/new",
    "/new?like=quickstart",
    "/studies/none",
]


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


def test_the_overview_is_searched_by_name_and_state(client, read):
    read.names = ["quickstart", "other"]

    def listed(query):
        page = Tags(client.get(f"/{query}").text)
        return [a["href"] for tag, a in page.tags if tag == "a" and "/studies/" in a["href"]]

    assert "/studies/other" in listed("")
    assert "/studies/other" not in listed("?q=quick")
    assert "/studies/other" in listed("?q=&state=RUNNING")
    nothing = client.get("/?state=PAUSED").text
    assert "No study is like that" in nothing
    assert "No studies yet" not in nothing
    assert client.get("/", params={"q": EVIL, "state": EVIL}).text.count(EVIL) == 0


def test_a_spark_line_steps_where_the_best_improves():
    assert spark([]) == spark([(1, 2.0)]) == ""
    assert (
        spark([(1, 3.0), (3, 1.0), (5, 1.0)]) == "0.0,1.0 50.0,1.0 50.0,23.0 100.0,23.0 100.0,23.0"
    )
    assert spark([(1, 1.0), (2, 1.0)]) == "0.0,23.0 100.0,23.0 100.0,23.0"


def test_an_empty_overview_teaches_the_first_step(client, read):
    read.names = []
    text = Tags(client.get("/").text).text
    assert "No studies yet" in text
    assert "lmtune create study.yaml" in text


def test_the_study_page_offers_what_the_state_allows(client, read):
    steer = {"enqueue", "budget", "narrow"}
    names = {"pause", "resume", "stop", *steer}

    def enabled():
        page = Tags(client.get("/studies/quickstart").text)
        return {name for name in names if "disabled" not in page.by_id(name)}

    assert enabled() == {"pause", "stop", *steer}
    read.state = StudyState.PAUSED
    assert enabled() == {"resume", "stop", *steer}
    read.state = StudyState.ENDED
    assert enabled() == set()


def test_the_study_page_tells_what_happened(client):
    text = " ".join(Tags(client.get("/studies/quickstart").text).text.split())
    assert "Budget changed: trials 8 → 16, learning_rate [0.0001, 1] → none" in text
    assert "Paused: by a person" in text
    assert "Enqueued: learning_rate" in text


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
    assert client.get(url, headers={"If-None-Match": etag}).status_code == 304
    read.step += 30
    assert client.get(url, headers={"If-None-Match": etag}).status_code == 200


def test_what_only_the_end_of_a_trial_changes_is_not_drawn_with_every_report(client, read):
    url = "/api/v1/studies/quickstart/figures/slices"
    etag = client.get(url).headers["etag"]
    read.step += 30
    assert client.get(url, headers={"If-None-Match": etag}).status_code == 304
    read.revision += 1
    assert client.get(url, headers={"If-None-Match": etag}).status_code == 200


def test_the_table_is_sorted_filtered_and_cut_on_the_server(client, read):
    def rows(**query):
        return client.get("/api/v1/studies/quickstart/table", params=query).json()

    everything = rows(sort="value", down=False)
    values = [row["value"] for row in everything["rows"]]
    known = [value for value in values if value is not None]
    assert known == sorted(known)
    assert values[len(known) :] == [None] * (len(values) - len(known))
    assert [row["best"] for row in everything["rows"]].count(True) == 1
    cut = rows(sort="param learning_rate", state="COMPLETE", limit=2)
    rates = [row["params"]["learning_rate"] for row in cut["rows"]]
    assert rates == sorted(rates, reverse=True)
    assert len(rates) == 2
    assert 2 < cut["matching"] < cut["total"] == everything["matching"]
    by_knob = rows(sort="param lambda")["rows"]
    assert "lambda" in by_knob[0]["params"]
    assert "lambda" not in by_knob[-1]["params"]


def test_figures_answer_for_what_is_not_there(client):
    assert client.get("/api/v1/studies/none/figures").status_code == 404
    assert client.get("/api/v1/studies/none/figures/history").status_code == 404
    assert client.get("/api/v1/studies/quickstart/figures/pie").status_code == 404
    assert client.get("/api/v1/studies/quickstart/figures/slices?columns=0").status_code == 422


def test_a_trials_figure_shows_both_losses(client):
    figure = client.get("/api/v1/studies/quickstart/trials/5/figure").json()
    names = [trace["name"] for trace in figure["data"]]
    assert names == ["validation loss", "train loss", "unigram 3.31"]


def test_plotly_is_of_its_packages_version_zipped_and_kept(client):
    url = re.search(r'data-plotly="([^"]+)"', client.get("/studies/quickstart").text).group(1)
    with client.stream("GET", url, headers={"Accept-Encoding": "gzip"}) as answer:
        raw = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == "gzip"
    assert "immutable" in answer.headers["cache-control"]
    assert len(raw) < 600_000
    script = gzip.decompress(raw).decode()
    assert f"plotly.js (cartesian - minified) v{get_plotlyjs_version()}\n" in script[:100]
    again = client.get(url, headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


def test_own_files_are_kept_by_their_version_and_a_path_leads_nowhere(client):
    answer = client.get("/static/another-version/main.js")
    assert answer.headers["content-type"].startswith("text/javascript")
    assert answer.headers["cache-control"] == "no-cache"
    mine = client.get(assets.address("main.js"))
    assert (mine.text, mine.headers["etag"]) == (answer.text, answer.headers["etag"])
    assert "immutable" in mine.headers["cache-control"]
    for name in ("nothing.js", "..%2fsettings.py", "%2e%2e/app.py", "..\\app.py", "style.css%00"):
        assert client.get(assets.address(name)).status_code == 404


def test_every_file_that_a_script_or_page_names_is_there(client):
    for name in ("main.js", "style.css", "favicon.svg"):
        assert client.get(assets.address(name)).status_code == 200
    todo, seen = ["main.js"], set()
    while todo:
        name = todo.pop()
        seen.add(name)
        found = re.findall(r'from "\./([a-z]+\.js)"', client.get(assets.address(name)).text)
        todo += [other for other in found if other not in seen]
    assert all(client.get(assets.address(name)).status_code == 200 for name in seen)


def test_the_sign_in_page_needs_no_script(client):
    page = TEMPLATES.get_template("login.html").render(error=EVIL)
    tags = Tags(page).tags
    assert not [tag for tag, _ in tags if tag == "script"]
    assert EVIL in Tags(page).text
    assert ("form", {"class": "card login", "method": "post", "action": "/login"}) in tags


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


def test_a_wall_time_is_spelled_so_that_a_study_file_takes_it():
    said = [160.0, "160.0", 1_209_600.0, 0.5, "10m", "1h30", ""]
    assert [spelled(s) for s in said] == ["160s", "160s", "1209600s", "0.5s", "10m", "1h30", ""]


def test_another_plotly_has_another_address(monkeypatch):
    before = assets.address(assets.PLOTLY)
    monkeypatch.setattr(assets, "_plotly", lambda: b"another")
    for kept in (assets._asset, assets._version):
        monkeypatch.setattr(assets, kept.__name__, kept.__wrapped__)
    assert assets.address(assets.PLOTLY) != before


def test_numbers_and_durations_in_words():
    assert [percent(part) for part in (None, 0.0, 0.666, 1.0)] == ["–", "0 %", "67 %", "100 %"]
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

"""The pages of trials, alone and compared, on a read side that is made up."""

import re

from studies.trial import TrialState
from tests.service.pages import EVIL, Tags


def test_a_trials_page_says_why_it_ended_its_rank_and_what_can_be_done(client, read):
    def said(number):
        return " ".join(Tags(client.get(f"/studies/quickstart/trials/{number}").text).text.split())

    complete = next(t.number for t in read._data() if t.state is TrialState.COMPLETE)
    failed = next(t.number for t in read._data() if t.state is TrialState.FAILED)
    assert "trained to its end" in said(complete)
    assert "2nd of 7 complete" in said(complete)
    assert "the last line of its log" in said(complete)
    assert "Checkpoint of step 300" in said(complete)
    assert "diverged: the loss is not finite" in said(failed)
    assert "Rerun" in said(complete)
    assert "Cancel" in said(11)
    assert "Cancel the trial" not in said(complete)


def test_a_trials_page_says_when_its_log_comes_and_which_seed_a_rerun_has(client, read):
    def page(number):
        return client.get(f"/studies/quickstart/trials/{number}").text

    assert "the same values, another seed." in page(2)
    read.seed, read.log = 7, ""
    assert "the same values and seed." in page(2)
    assert "Nothing was logged." in page(2)
    assert "Nothing yet: what a worker logs" in page(11)


def test_compared_trials_show_what_differs(client):
    page = client.get(
        "/studies/quickstart/compare", params={"trials": f"2,3,2,{EVIL},999999999999"}
    )
    rows = re.findall(r'<tr class="differs">\s*<th scope="row">([^<]+)', page.text)
    assert "learning_rate" in rows
    assert Tags(page.text).by_id("compared")["data-figure"].endswith("?trials=2,3")
    assert client.get("/studies/quickstart/compare?trials=2,99").status_code == 404
    assert "Choose two to six" in client.get("/studies/quickstart/compare").text
    figure = client.get("/api/v1/studies/quickstart/comparison?trials=2,3").json()
    assert [trace["name"] for trace in figure["data"]] == ["trial 2", "trial 3", "unigram 3.31"]
    assert client.get("/api/v1/studies/quickstart/comparison?trials=2").status_code == 422


def test_a_trials_figure_shows_where_its_attempts_went_on(client, read, monkeypatch):
    trial = read.trial("quickstart", 5)
    first = trial.attempts[0].model_copy(update={"outcome": "lost"})
    again = first.model_copy(update={"attempt": 2, "worker": "cpu-1", "start_step": 60})
    twice = trial.model_copy(update={"attempts": [first, again]})
    monkeypatch.setattr(read, "trial", lambda name, number: twice)
    figure = client.get("/api/v1/studies/quickstart/trials/5/figure").json()
    assert figure["data"][-1]["text"][0] == "attempt 2 on cpu-1, from step 60, after lost"
    (note,) = figure["layout"]["annotations"]
    assert (note["text"], note["x"]) == ("attempt 2, after lost", 60)

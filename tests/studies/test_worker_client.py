"""The worker's client: what it makes of answers, and how long it waits for them."""

import httpx
import pytest

from studies import wire
from studies.client import Claimed, WorkerClient
from studies.errors import LmtuneError, NotFound, ServerFailed, ServerUnreachable, Unavailable
from studies.recipe import Recipe

CLAIM = wire.ClaimBody(seq=1, lease_token="f" * 32, protocol=1, code_hash="c")


def client(answer):
    """A client whose every request is answered by `answer`, a response or a function."""
    handler = answer if callable(answer) else lambda request: answer
    return WorkerClient("http://fake", "token", transport=httpx.MockTransport(handler))


def attempt(answer, lease_ms):
    grant = wire.Grant(
        trial_id=1, study="s", number=0, attempt=1, lease_ms=lease_ms, heartbeat_ms=lease_ms // 4,
        recipe=Recipe.model_validate({"data": {"builtin": "stdlib"}}), resume=None, max_step=9,
    )  # fmt: skip
    return client(answer).attempt(grant, "f" * 32)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
@pytest.mark.parametrize(
    ("said", "seconds"), [("7", 7.0), ("", 0.0), ("nan", 0.0), ("Wed, 25 Nov 2026 02:17 GMT", 0.0)]
)
def test_a_busy_server_says_how_long_to_wait(status, said, seconds):
    busy = httpx.Response(status, headers={"Retry-After": said}, text="busy")
    with pytest.raises(Unavailable) as caught:
        client(busy).claim(1, CLAIM)
    assert caught.value.retry_after == seconds


def test_nothing_to_do_says_how_long_to_wait():
    nothing = httpx.Response(204, headers={"Retry-After": "3"})
    assert client(nothing).claim(1, CLAIM) == Claimed(None, 3.0)


@pytest.mark.parametrize("answer", [
    httpx.Response(500, json={"code": "internal", "detail": "internal error 7"}),
    httpx.Response(404, text="<html>nginx"),
    httpx.Response(302, headers={"Location": "http://portal"}),
    httpx.Response(200, text="<html>welcome to the hotel"),
    httpx.Response(200, json={"other": 1}),
])  # fmt: skip
def test_what_is_no_answer_of_ours_may_be_asked_again(answer):
    with pytest.raises(ServerFailed):
        client(answer).claim(1, CLAIM)


def test_our_servers_word_is_taken():
    unknown = httpx.Response(404, json={"code": "not_found", "detail": "there is no worker 1"})
    with pytest.raises(NotFound, match="no worker 1"):
        client(unknown).claim(1, CLAIM)
    new = httpx.Response(507, json={"code": "a_newer_servers", "detail": "no room"})
    with pytest.raises(LmtuneError, match="no room") as caught:
        client(new).claim(1, CLAIM)
    assert not isinstance(caught.value, ServerFailed)


def test_a_broken_encoding_is_no_answer():
    stream = httpx.ByteStream(b"no gzip at all")
    broken = httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=stream)
    with pytest.raises(ServerUnreachable):
        client(broken).claim(1, CLAIM)


@pytest.mark.parametrize(("lease_ms", "beat", "write"), [(60_000, 15.0, 30.0), (2_000, 0.5, 5.0)])
def test_no_answer_is_waited_for_as_long_as_the_lease(lease_ms, beat, write):
    waits = {}

    def answer(request):
        waits[request.url.path.rsplit("/", 1)[1]] = request.extensions["timeout"]["read"]
        return httpx.Response(200, json={"decision": "continue", "accepted_through": 5})

    calls = attempt(answer, lease_ms)
    calls.heartbeat(5)
    calls.report([wire.ReportItem(step=5, metrics={"validation_loss": 1.0})])
    calls.log("a line")
    assert waits == {"heartbeat": beat, "reports": write, "log": write}


def test_a_long_log_is_cut_at_a_whole_character():
    sent = []
    attempt(lambda request: sent.append(request.read()) or httpx.Response(204), 2_000).log(
        "x" + "é" * 40_000 + "\ud800"
    )
    assert len(sent[0]) <= wire.MAX_LOG_BYTES
    assert set(sent[0].decode()) == {"é", "?"}

"""What is made ready while a server starts: the first reader finds it drawn."""

import pytest

from service.routes import plots
from service.routes.warm import Warmer
from tests.harness.process import wait_for
from tests.service.pages import client_of
from tests.service.stand_in import StandIn

URL = "/api/v1/studies/quickstart/figures"


def drawn() -> int:
    return plots._drawn.cache_info().misses


def test_what_a_page_shows_first_is_drawn_before_anybody_asks():
    read, before = StandIn(), drawn()
    warmer = Warmer(read)
    warmer.start()
    wait_for(lambda: drawn() == before + 3, 30, "three drawn figures")
    warmer.stop()
    for kind in ("history", "curves", "importances"):
        assert client_of(read).get(f"{URL}/{kind}?columns=2&x=step").status_code == 200
    assert drawn() == before + 3
    assert client_of(read).get(f"{URL}/curves?x=tokens").status_code == 200
    assert drawn() == before + 4


def test_a_server_that_ends_at_once_draws_nothing():
    read, before = StandIn(), drawn()
    warmer = Warmer(read)
    warmer.start()
    warmer.stop()
    assert (read.calls, drawn()) == (0, before)


@pytest.mark.parametrize("names", [[], ["a", "b", "c", "d"]])
def test_only_the_newest_studies_are_made_ready(names):
    read, before = StandIn(names), drawn()
    warmer = Warmer(read)
    warmer.start()
    wait_for(lambda: not warmer._thread.is_alive(), 30, "the end of its work")
    assert drawn() - before == 3 * min(len(names), 3)

"""What bench-service measures of lmtune alone: open loop, claims, growth, recovery, herd."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from studies.spec import parse_spec
from tests.benchmarks._fill import fill, study_file
from tests.benchmarks._load import Client, Order, Seen
from tests.benchmarks._systems import Lmtune, ms, percentile, started
from tests.harness.postgres import Postgres
from tests.harness.process import wait_for

OPEN_LOOP_CLIENTS: Final = 200
HERD: Final = 1_000
SIZES: Final = (100, 1_000, 10_000)  # finished trials
Part = dict[str, Any]


def url_of(database: str, name: str, folder: Path, cluster: Postgres) -> str:
    """Returns the URL of a new database."""
    return cluster.database() if database == "postgres" else f"sqlite:///{folder / name}.db"


@contextmanager
def filled(
    database: str, trials: int, sampler: str, folder: Path, cluster: Postgres
) -> Iterator[Lmtune]:
    """A server on a database whose one running study has so many finished trials."""
    name = f"{database}-{trials}-{sampler}"
    url = url_of(database, name, folder, cluster)
    fill(url, study_file("filled", sampler, 10), trials)
    system = Lmtune(name, url, folder / name)
    with started(system.server):
        yield system


def open_loop(system: Lmtune, seconds: float) -> Part:
    """200 connections, each a report a second, due whether or not the last was answered."""
    system.server.client.studies.create(parse_spec(study_file("open-loop", "random", 1_000)))
    seen = system.load(clients=OPEN_LOOP_CLIENTS, seconds=seconds, warm=5.0, rate=1.0)
    system.server.client.studies.act("open-loop", "stop")
    return {"reports_per_s": len(seen["report"]) / seconds, **_latencies(seen["report"])}


def maximum_rate(system: Lmtune, seconds: float) -> Part:
    """200 connections, as fast as they are answered."""
    system.server.client.studies.create(parse_spec(study_file("maximum", "random", 1_000)))
    seen = system.load(clients=OPEN_LOOP_CLIENTS, seconds=seconds, warm=5.0)
    system.server.client.studies.act("maximum", "stop")
    return {"reports_per_s": len(seen["report"]) / seconds, **_latencies(seen["report"])}


def claims(system: Lmtune, seconds: float) -> Part:
    """One claim a second on the study that is there."""
    seen = system.load(clients=1, seconds=seconds, warm=2.0, rate=1.0, claims_only=True)
    return {"claims": len(seen["claim"]), **_latencies(seen["claim"])}


def reports(system: Lmtune, seconds: float) -> Part:
    """32 connections, as fast as they are answered, on the study that is there."""
    seen = system.load(clients=32, seconds=seconds, warm=2.0)
    return {"reports_per_s": len(seen["report"]) / seconds, **_latencies(seen["report"])}


def recovery(system: Lmtune) -> Part:
    """A report and a suggestion after `kill -9` and a new start, in seconds since that start."""
    client, grant, lease = asyncio.run(_one_grant(system))
    system.server.kill()
    began = time.monotonic()
    system.server.start()
    first = {"step": 1, "metrics": {"validation_loss": 2.0}}
    path = f"/api/v1/trials/{grant['trial_id']}/attempts/{grant['attempt']}/reports"
    found: Part = {"ready_s": time.monotonic() - began}
    found["report_s"], found["suggestion_s"] = asyncio.run(
        _after_restart(client, path, {"items": [first]}, lease, began)
    )
    return found


async def _one_grant(system: Lmtune) -> tuple[Client, dict[str, Any], str]:
    order = Order(url=system.server.url, token=system.server.token)
    client = Client(order, Seen(), 0)
    await client.register()
    grant, lease = await client.claim()
    client.http.close()
    assert grant is not None, "a study with room grants a trial"
    return client, grant, lease


async def _after_restart(
    client: Client, path: str, body: Any, lease: str, began: float
) -> tuple[float, float]:
    status, _, _ = await client.until_answered("POST", path, body, lease)
    assert status == 200, status
    reported = time.monotonic() - began
    grant, _ = await client.claim()
    assert grant is not None, "a suggestion"
    client.http.close()
    return reported, time.monotonic() - began


def herd(system: Lmtune, seconds: float = 60.0) -> Part:
    """1,000 workers that register and claim within one second; then again after a kill."""
    found: Part = {}
    for when in ("at first", "after a kill"):
        name = f"herd-{when.replace(' ', '-')}"
        document = study_file(name, "random", 10)
        system.server.client.studies.create(parse_spec(document))
        if when != "at first":
            system.server.kill()
            system.server.start()
        seen = system.load(clients=HERD, seconds=seconds, warm=0.0, herd=True)
        system.server.client.studies.act(name, "stop")
        wait_for(lambda n=name: _ended(system, n), 180, "end of the herd's study")
        statuses = {int(status): count for status, count in seen["statuses"].items()}
        found[when] = {
            "granted": len(seen["granted"]),
            "all_granted_s": max(seen["granted"], default=None),
            "slowest_answer_s": max(seen["answered"], default=None),
            "answers": statuses,
            "other_5xx": sum(n for status, n in statuses.items() if status > 499 and status != 503),
        }
    return found


def _ended(system: Lmtune, study: str) -> bool:
    return system.server.client.studies.get(study).state == "ENDED"


def _latencies(seconds: list[float]) -> Part:
    longest = percentile(seconds, 1.0)
    return {
        "p50_ms": ms(seconds, 0.5),
        "p99_ms": ms(seconds, 0.99),
        "max_ms": None if longest is None else longest * 1_000,
    }

"""Databases with their tables made: migrated once, then copied for every test."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from service.store.database import Database
from service.store.migrate import migrate
from service.store.tables import clock
from tests.service.pages import client_of
from tests.service.stand_in import StandIn
from tests.service.world import World

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

    from tests.harness.postgres import Postgres

KEPT = {"alembic_version", "version_info", "lmtune_alembic_version"}  # what migrations wrote


def _migrated(url: str) -> str:
    database = Database(url)
    migrate(database)
    database.close()
    return url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "lmtune.db"
    _migrated(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres: Postgres) -> str:
    return _migrated(postgres.database())


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of a SQLite database with empty tables."""
    shutil.copy(sqlite_template, tmp_path / "lmtune.db")
    return f"sqlite:///{tmp_path / 'lmtune.db'}"


def emptied(url: str) -> str:
    """Returns the URL of a PostgreSQL database, its tables emptied."""
    engine = sa.create_engine(url)
    names = set(sa.inspect(engine).get_table_names())
    deletes = "; ".join(f"DELETE FROM {name}" for name in sorted(names - KEPT))  # noqa: S608
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")  # any order
        connection.exec_driver_sql(deletes)
        connection.execute(clock.insert().values(id=1, t=0.0, wall=time.time()))
    engine.dispose()
    return url


@pytest.fixture
def postgres_url(postgres_template: str) -> str:
    """The URL of a PostgreSQL database with empty tables; the same one, emptied for every test."""
    return emptied(postgres_template)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def either_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database with empty tables, on SQLite and on PostgreSQL."""
    return request.getfixturevalue(f"{request.param}_url")


def _world(url: str) -> Iterator[World]:
    made = World(Database(url))
    yield made
    made.close()


@pytest.fixture
def world(either_url: str) -> Iterator[World]:
    """A server's use cases on SQLite and on PostgreSQL."""
    yield from _world(either_url)


@pytest.fixture
def small_world(sqlite_url: str) -> Iterator[World]:
    """A server's use cases on SQLite: where the database makes no difference."""
    yield from _world(sqlite_url)


@pytest.fixture
def read() -> StandIn:
    """A read side that is made up, for pages."""
    return StandIn()


@pytest.fixture
def client(read: StandIn) -> TestClient:
    """A browser without scripts on the pages of `read`."""
    return client_of(read)

"""Databases with their tables made: migrated once, then copied for every test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
import sqlalchemy as sa

from service.store.database import Database
from service.store.migrate import migrate
from tests.service.world import World

if TYPE_CHECKING:
    from tests.harness.postgres import Postgres


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


@pytest.fixture
def postgres_url(postgres_template: str, postgres: Postgres) -> str:
    """The URL of a PostgreSQL database with empty tables."""
    template = sa.make_url(postgres_template).database
    fresh = sa.make_url(postgres.database())
    server = f"host={fresh.host} port={fresh.port} user={fresh.username} dbname=postgres"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{fresh.database}"')
        connection.execute(f'CREATE DATABASE "{fresh.database}" TEMPLATE "{template}"')
    return fresh.render_as_string(hide_password=False)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def either_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database with empty tables, on SQLite and on PostgreSQL."""
    return request.getfixturevalue(f"{request.param}_url")


def _world(url: str) -> Iterator[World]:
    database = Database(url)
    yield World(database)
    database.close()


@pytest.fixture
def world(either_url: str) -> Iterator[World]:
    """A server's use cases on SQLite and on PostgreSQL."""
    yield from _world(either_url)


@pytest.fixture
def small_world(sqlite_url: str) -> Iterator[World]:
    """A server's use cases on SQLite: where the database makes no difference."""
    yield from _world(sqlite_url)

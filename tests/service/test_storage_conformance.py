"""Optuna's own conformance suite for storages, run on the one that is bound to our transaction."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from optuna.testing.pytest_storages import StorageTestCase

from service.store.optuna_rows import BoundStorage
from tests.service.world import World


class _Conforms(StorageTestCase):
    test_pickle_storage = None  # it lives as long as a transaction, which nothing can pickle

    @pytest.fixture
    def storage(self, world: World) -> Iterator[BoundStorage]:
        with world.db.writer.begin() as conn:
            yield BoundStorage(conn)


class TestOnSqlite(_Conforms):
    @pytest.fixture
    def world(self, small_world: World) -> World:
        return small_world


@pytest.mark.slow
@pytest.mark.postgres
class TestOnPostgres(_Conforms):
    @pytest.fixture
    def either_url(self, postgres_url: str) -> str:
        return postgres_url

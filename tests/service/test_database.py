"""The writer: a write happens whole or not at all, and is tried again when that may help."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.store import optuna_rows, tokens
from service.store.commits import TRIES
from service.store.database import Database, Repeat
from service.store.driver import driver, wal_is_safe
from service.store.migrate import migrate
from studies.errors import StartupError, Unavailable
from tests.harness.postgres import Postgres
from tests.harness.process import ROOT
from tests.service.world import World


def keys(world: World) -> list[str]:
    return [row.hash for row in world.rows("tokens")]


def test_a_write_that_raises_leaves_nothing_and_undoes(world: World) -> None:
    undone: list[str] = []

    def work(tx):
        tx.on_rollback(lambda: undone.append("undone"))
        tokens.add(tx, "a", "token", None)
        raise KeyError("no")

    with pytest.raises(KeyError):
        world.db.write(work)
    assert keys(world) == []
    assert undone == ["undone"]


def test_a_write_that_commits_undoes_nothing(world: World) -> None:
    undone: list[str] = []

    def work(tx):
        tx.on_rollback(lambda: undone.append("undone"))
        tokens.add(tx, "a", "token", None)

    world.db.write(work)
    assert (keys(world), undone) == (["a"], [])


def failing(times: int, world: World):
    """A write that the database asks to repeat, this often, after it wrote."""
    calls: list[int] = []

    def work(tx):
        calls.append(1)
        tokens.add(tx, f"try {len(calls)}", "token", None)
        if len(calls) <= times:
            raise sa.exc.OperationalError("x", {}, driver.OperationalError("database is locked"))

    return work, calls


def test_a_locked_database_is_asked_again(world: World) -> None:
    work, calls = failing(2, world)
    world.db.write(work)
    assert (keys(world), len(calls)) == (["try 3"], 3)


def test_a_database_that_stays_locked_is_unavailable(small_world: World) -> None:
    work, calls = failing(99, small_world)
    with pytest.raises(Unavailable):
        small_world.db.write(work)
    assert (keys(small_world), len(calls)) == ([], TRIES)


def test_a_write_may_ask_to_be_run_again(world: World) -> None:
    calls: list[int] = []

    def work(tx):
        calls.append(1)
        tokens.add(tx, f"try {len(calls)}", "token", None)
        if len(calls) < 3:
            raise Repeat("what it built on has changed")

    world.db.write(work)
    assert keys(world) == ["try 3"]


def test_writes_at_once_all_happen(world: World) -> None:
    def write(name: int) -> None:
        world.db.write(lambda tx: tokens.add(tx, f"{name:03}", "token", None))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert keys(world) == [f"{n:03}" for n in range(40)]


def test_a_reader_cannot_write(small_world: World) -> None:
    with pytest.raises(Unavailable):
        small_world.db.read(lambda conn: conn.execute(sa.text("DELETE FROM lmtune_tokens")))


def test_a_read_sees_one_state_of_the_database(world: World) -> None:
    def look(conn: sa.Connection) -> list[int]:
        count = sa.text("SELECT count(*) FROM lmtune_tokens")
        before = conn.execute(count).scalar_one()
        if not world.db.sqlite:  # there a reader in a rollback journal would hold the writer up
            world.db.write(lambda tx: tokens.add(tx, "meanwhile", "token", None))
        return [before, conn.execute(count).scalar_one()]

    assert world.db.read(look) == [0, 0]


def test_a_foreign_reader_delays_a_write_and_does_not_lose_it(small_world: World) -> None:
    """A notebook that holds its read for a while: in rollback mode the commit waits for it."""
    path = small_world.db.url.database
    reading, done = threading.Event(), threading.Event()

    def read() -> None:
        with driver.connect(path) as foreign:
            rows = foreign.execute("SELECT name FROM sqlite_master")
            rows.fetchone()
            reading.set()
            done.wait(0.3)
            rows.close()
        foreign.close()

    thread = threading.Thread(target=read)
    thread.start()
    reading.wait()
    small_world.db.write(lambda tx: tokens.add(tx, "a", "token", None))
    done.set()
    thread.join()
    assert keys(small_world) == ["a"]


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 45, 3), False),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 53, 0), True),
    ],
)
def test_wal_is_used_only_where_it_is_safe(version, safe) -> None:
    assert wal_is_safe(version) is safe


def test_the_journal_is_durable(small_world: World) -> None:
    mode = "wal" if wal_is_safe(driver.sqlite_version_info) else "persist"

    def read(tx):
        return [tx.conn.exec_driver_sql(f"PRAGMA {p}").scalar() for p in PRAGMAS]

    assert small_world.db.write(read) == [mode, 2, 1]


PRAGMAS = ("journal_mode", "synchronous", "foreign_keys")


# ------------------------------------------------------------------ opening


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nonsense", "LMTUNE_DATABASE_URL is not a database URL"),
        ("mysql://u:p@h/n", "names mysql; use sqlite:///FILE or postgresql"),
        ("postgresql+psycopg://u:secret@127.0.0.1:1/n", "cannot open the database .*u:\\*\\*\\*@"),
        ("sqlite:////nowhere/at/all.db", "unable to open database file"),
        ("postgresql+asyncpg://u@h/n", "the database driver is missing"),
    ],
)
def test_a_broken_url_is_one_clear_line(url, says) -> None:
    with pytest.raises(StartupError, match=says) as raised:
        Database(url)
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_file_that_is_no_database_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "letter.db"
    path.write_text("Dear reader, this is no database. " * 50)
    with pytest.raises(StartupError, match="file is not a database"):
        Database(f"sqlite:///{path}")
    assert path.read_text().startswith("Dear reader")


@pytest.mark.postgres
@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_the_usual_postgres_urls_mean_psycopg(postgres_url: str, scheme) -> None:
    url = postgres_url.replace("postgresql+psycopg", scheme)
    database = Database(url)
    assert database.url.drivername == "postgresql+psycopg"
    database.close()


# ------------------------------------------------------------------ migrations


def test_a_new_database_gets_every_table(database_url: str) -> None:
    database = Database(database_url)
    migrate(database)
    migrate(database)
    names = set(sa.inspect(database.reader).get_table_names())
    database.close()
    assert {"lmtune_studies", "lmtune_trials", "studies", "trials", "alembic_version"} <= names


@pytest.mark.postgres
def test_servers_that_start_at_once_share_the_work(postgres: Postgres) -> None:
    """Of one PostgreSQL database; a SQLite file has one server, which locks its home folder."""
    url = postgres.database()
    errors: list[BaseException] = []

    def start() -> None:
        database = Database(url)
        try:
            migrate(database)
        except BaseException as error:
            errors.append(error)
        finally:
            database.close()

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_database_of_a_newer_lmtune_is_refused(small_world: World) -> None:
    small_world.change_theirs("lmtune_alembic_version", {}, version_num="9999")
    with pytest.raises(StartupError, match="newer lmtune"):
        migrate(small_world.db)


def test_a_database_of_another_optuna_is_refused(small_world: World) -> None:
    small_world.change_theirs("alembic_version", {}, version_num="v9.9.9.a")
    with pytest.raises(StartupError, match="another Optuna"):
        migrate(small_world.db)


def test_a_start_on_current_tables_waits_for_no_alembic(small_world: World) -> None:
    """A server that comes back serves a second sooner; other tables are alembic's to look at."""
    assert small_world.storage().get_head_version() == optuna_rows.VERSION
    start = (
        "import sys; from service.store.database import Database; "
        "from service.store.migrate import migrate; database = Database(sys.argv[1]); "
        "migrate(database); database.close(); sys.exit('alembic' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", start, small_world.url], check=True, cwd=ROOT)


def test_the_migrations_make_the_tables_that_the_code_means(world: World) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from service.store.tables import metadata

    with world.db.writer.connect() as conn:
        ours = {
            "include_name": lambda name, kind, _: kind != "table" or name.startswith("lmtune_"),
            "version_table": "lmtune_alembic_version",
        }
        context = MigrationContext.configure(conn, opts=ours)
        assert compare_metadata(context, metadata) == []

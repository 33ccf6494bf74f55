"""The states of all tasks, in SQLite: durable, readable while the driver works, made anew if damaged."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from ..core import InputError, StorageError
from ..storage import is_locked
from .task import Outcome, Tally, Task

DATABASE = "study.db"
"""The file in a study's folder; SQLite adds two more while it is open."""

_VERSION = 1
_DAMAGE = ("malformed", "no such column", "not a database")
_TABLES = """
CREATE TABLE IF NOT EXISTS tasks (
  id TEXT PRIMARY KEY NOT NULL, kind TEXT NOT NULL, label TEXT NOT NULL, folder TEXT NOT NULL, kept INTEGER NOT NULL,
  state TEXT NOT NULL DEFAULT 'waiting', error TEXT NOT NULL DEFAULT '', log TEXT
);
CREATE TABLE IF NOT EXISTS needs (need TEXT NOT NULL, task TEXT NOT NULL, PRIMARY KEY (need, task));
CREATE TABLE IF NOT EXISTS attempts (
  task TEXT NOT NULL, number INTEGER NOT NULL, started REAL NOT NULL, ended REAL, outcome TEXT, seconds REAL,
  worker TEXT, error TEXT, log TEXT, PRIMARY KEY (task, number)
);
"""
_STUCK = """
WITH RECURSIVE stuck(id, cause) AS (
  SELECT id, id FROM tasks WHERE state = 'failed'
  UNION
  SELECT needs.task, stuck.cause FROM needs JOIN stuck ON needs.need = stuck.id
) SELECT id, min(cause) FROM stuck GROUP BY id
"""


@final
class Store:
    """The database, open for the driver.

    Args:
        folder: the study's folder.

    Attributes:
        rebuilt: one sentence if the database was damaged and a new one begun; else empty.

    Raises:
        InputError: it was written by another version.
        StorageError: it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / DATABASE
        self.rebuilt = ""
        with _explained(self._path):
            try:
                self._connection = self._open()
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError) and not any(word in str(error) for word in _DAMAGE):
                    raise
                aside = self._put_aside()
                self.rebuilt = f"{self._path} was damaged ({error}); it was moved to {aside.name} and is made anew from what is on disk."
                self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=10)
        try:
            [[version]] = connection.execute("PRAGMA user_version").fetchall()
            self._check(version, connection.execute("PRAGMA quick_check").fetchall())
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")  # an unrecorded product is still on the disk
            connection.executescript(_TABLES)
            connection.execute(f"PRAGMA user_version = {_VERSION}")
            connection.execute("SELECT id, kind, label, folder, kept, state, error, log FROM tasks LIMIT 1").fetchall()
        except BaseException:
            connection.close()
            raise
        return connection

    def _check(self, version: int, problems: list[tuple[str]]) -> None:
        if problems != [("ok",)]:
            raise sqlite3.DatabaseError(problems[0][0])
        if version not in {0, _VERSION}:
            raise InputError(
                f"{self._path} was written by another version of encircle (format {version}, not {_VERSION}); use that version."
            )

    def _put_aside(self) -> Path:
        number = 1
        while (aside := self._path.with_name(f"{DATABASE}.damaged-{number}")).exists():
            number += 1
        self._path.replace(aside)
        for ending in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                self._path.with_name(DATABASE + ending).replace(aside.with_name(aside.name + ending))
        return aside

    def close(self) -> None:
        """Close the database; another process may open it."""
        self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _explained(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    def register(self, tasks: Sequence[Task]) -> None:
        """Register these tasks, and no others; known tasks keep their state. Cut-off attempts are closed.

        A task that an edited study no longer plans is forgotten, but its product is not deleted: if planned again, the task is done already.
        """
        planned = {task.id for task in tasks}
        with self._transaction() as write:
            gone = [name for (name,) in write.execute("SELECT id FROM tasks") if name not in planned]
            write.executemany("DELETE FROM tasks WHERE id = ?", [(name,) for name in gone])
            write.execute("DELETE FROM needs")
            write.executemany(
                "INSERT INTO tasks (id, kind, label, folder, kept) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
                "kind = excluded.kind, label = excluded.label, folder = excluded.folder, kept = excluded.kept",
                [(task.id, task.kind, task.label, task.folder, task.is_result) for task in tasks],
            )
            write.executemany(
                "INSERT OR IGNORE INTO needs (task, need) VALUES (?, ?)",
                [(task.id, need) for task in tasks for need in task.needs],
            )
            self._interrupt(write)

    def interrupt(self) -> None:
        """Close running attempts as cut off; their tasks wait again."""
        with self._transaction() as write:
            self._interrupt(write)

    def _interrupt(self, write: sqlite3.Connection) -> None:
        write.execute(
            "UPDATE attempts SET ended = ?, outcome = 'interrupted' WHERE ended IS NULL",
            (time.time(),),
        )
        write.execute("UPDATE tasks SET state = 'waiting' WHERE state = 'running'")

    def states(self) -> dict[str, str]:
        """The state of every task, by id."""
        with _explained(self._path):
            return dict(self._connection.execute("SELECT id, state FROM tasks"))

    def set_states(self, state: str, tasks: Iterable[str]) -> None:
        """Put tasks into a state, and forget their errors."""
        with self._transaction() as write:
            write.executemany(
                "UPDATE tasks SET state = ?, error = '', log = NULL WHERE id = ?", [(state, task) for task in tasks]
            )

    def attempts(self) -> dict[str, int]:
        """Number of attempts, for each task with any."""
        with _explained(self._path):
            return dict(self._connection.execute("SELECT task, max(number) FROM attempts GROUP BY task"))

    def begin(self, task: str, number: int) -> None:
        """An attempt begins."""
        with self._transaction() as write:
            write.execute("INSERT INTO attempts (task, number, started) VALUES (?, ?, ?)", (task, number, time.time()))
            write.execute("UPDATE tasks SET state = 'running' WHERE id = ?", (task,))

    def end(self, outcome: Outcome, number: int, state: str, log: str | None) -> None:
        """Record the end of an attempt and the state of its task.

        Args:
            outcome: of the attempt.
            number: the attempt's number.
            state: its task's, `"done"`, `"waiting"` or `"failed"`.
            log: its log's name in the study's folder; None without one.

        Raises:
            StorageError: the database cannot be written.
        """
        with self._transaction() as write:
            write.execute(
                "UPDATE attempts SET ended = ?, outcome = ?, seconds = ?, worker = ?, error = ?, log = ? WHERE task = ? AND number = ?",
                (
                    time.time(),
                    outcome.status,
                    outcome.seconds,
                    outcome.worker,
                    outcome.error,
                    log,
                    outcome.task,
                    number,
                ),
            )
            write.execute(
                "UPDATE tasks SET state = ?, error = ?, log = ? WHERE id = ?", (state, outcome.error, log, outcome.task)
            )

    def tally(self) -> Tally:
        """The state of the study."""
        with _explained(self._path):
            return _tally(self._connection)


def status(folder: Path) -> tuple[Tally, list[tuple[str, float]]]:
    """The state of a study, and label and start (seconds since the epoch) of running tasks.

    It may be called at any time, and does not disturb a driver at work in the folder.

    Raises:
        InputError: no study was run in the folder yet, or its database is damaged.
    """
    path = folder / DATABASE
    if not path.is_file():
        raise InputError(f"nothing was run in {folder} yet; start with `encircle study run`.")
    last: sqlite3.Error | None = None
    for how in (
        "mode=ro",
        "immutable=1",
    ):  # the second needs no further files, which a read-only folder forbids
        try:
            connection = sqlite3.connect(f"{path.resolve().as_uri()}?{how}", uri=True, timeout=10)
            try:
                if not is_locked(folder):
                    return _tally(connection, cut_off=True), []
                running = connection.execute(
                    "SELECT label, started FROM tasks JOIN attempts ON task = id WHERE state = 'running' AND ended IS NULL "
                    "ORDER BY started"
                ).fetchall()
                return _tally(connection), [(str(label), float(started)) for label, started in running]
            finally:
                connection.close()
        except sqlite3.Error as error:
            last = error
    if "no such table" in str(last):  # a driver was killed at its beginning
        raise InputError(f"nothing was run in {folder} yet; start with `encircle study run`.")
    raise InputError(f"{path} is damaged ({last}); `encircle study resume {folder}` makes it anew.")


def _tally(connection: sqlite3.Connection, *, cut_off: bool = False) -> Tally:
    """The tally; tasks of a cut-off driver count as waiting."""
    tally = Tally()
    stuck = dict(connection.execute(_STUCK))
    facts: Mapping[str, tuple[Any, ...]] = {
        row[0]: row[1:] for row in connection.execute("SELECT id, kind, label, kept, state, error, log FROM tasks")
    }
    for task, (kind, label, is_result, state, error, log) in facts.items():
        state = "waiting" if cut_off and state == "running" else state  # noqa: PLW2901
        shown = "blocked" if state == "waiting" and task in stuck else state
        by_state = tally.counts.setdefault(kind, {})
        by_state[shown] = by_state.get(shown, 0) + 1
        if state == "failed":
            tally.failures.append((label, error, log))
        if is_result and task in stuck:
            cause = facts[stuck[task]]
            where = "" if stuck[task] == task else f"{cause[1]}: "
            tally.reasons[task] = (f"{where}{cause[4]}", cause[5])
    tally.failures.sort()
    tally.seconds = dict(
        connection.execute(
            "SELECT kind, sum(seconds) FROM attempts JOIN tasks ON task = id WHERE outcome = 'done' GROUP BY kind"
        )
    )
    return tally


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """SQLite's errors as sentences."""
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(
            f"cannot write {path}: {error}; free some space or mend the folder, then go on with `encircle study resume`."
        ) from error

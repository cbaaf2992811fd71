"""The gallery's folder: one Lance table, a small record beside it, and how writers, readers and crashes get along.

::

    gallery.json        what the gallery is: encoder, protection, calibration, and which generation holds the templates
    .lock               held by the one process that writes; not empty while a write is under way
    gen-<token>/        a generation: a folder with the Lance table ``templates``, and a copy of a small one

Adding commits a new version of the table. Whatever must leave no trace of what was there before (forgetting, another
key, another encoder) writes the whole table anew into a fresh generation, points ``gallery.json`` to it in one atomic
step and deletes the old generation: no deleted row, old version, transaction file or index can keep anything back.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import time
import warnings
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ipse._files import atomic_write
from ipse.errors import GalleryError, IpseError
from ipse.gallery import snapshot

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import AsyncTable, Table

FORMAT = "ipse.gallery/1"
RECORD = "gallery.json"
LOCK = ".lock"
TABLE = "templates"
_GENERATION = "gen-"
# Every commit adds a file; once there are this many, plus one for so many rows, they are merged.
_FRAGMENTS, _ROWS_PER_FRAGMENT = 100, 10_000
# A reader in the middle of a query may still need the version before a merge.
_KEEP_VERSIONS = timedelta(minutes=10)

Result = TypeVar("Result")


class Store:
    """A gallery's folder.

    Parameters
    ----------
    path
        The folder.
    patience
        Seconds to wait for another process that writes.

    Raises
    ------
    GalleryError
        If there is no gallery there (reason ``missing``), or its record is damaged (``damaged``).
    """

    def __init__(self, path: str | os.PathLike[str], *, patience: float = 600) -> None:
        self.path = Path(path)
        self.patience = patience
        self._seen: tuple[int, ...] | None = None
        self._record: dict[str, Any] = {}
        self._table: Table | None = None
        self._async_table: AsyncTable | None = None
        self._snapshot: tuple[str, snapshot.Snapshot | None] = ("", None)
        self.refresh()
        self._recover_if_abandoned()

    @classmethod
    def create(cls, path: str | os.PathLike[str], record: dict[str, Any], schema: pa.Schema, exist_ok: bool) -> Store:
        """Make an empty gallery; with `exist_ok`, open the one that is there.

        Raises
        ------
        GalleryError
            If there is one and it is not `exist_ok` (reason ``exists``), the folder holds other things (``exists``),
            or cannot be written (``unwritable``).
        """
        folder = Path(path)
        with _writable(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder, 60):
                if not (folder / RECORD).exists():
                    strangers = [entry.name for entry in folder.iterdir() if not _ours(entry.name)]
                    if strangers:
                        raise GalleryError(
                            f"{folder} holds other things, such as {sorted(strangers)[0]}.",
                            "Give a gallery a folder of its own.",
                            reason="exists",
                        )
                    _sweep(folder, keep=None)
                    generation = _new_generation(folder, schema, [])
                    _write_record(folder, {"format": FORMAT, "generation": generation, **record})
                elif not exist_ok:
                    raise GalleryError(f"There is a gallery in {folder} already.", "Open it.", reason="exists")
        return cls(folder)

    @property
    def record(self) -> dict[str, Any]:
        """What ``gallery.json`` says; not to be changed."""
        return self._record

    def refresh(self) -> None:
        """Take note of what other processes did to the record.

        Raises
        ------
        GalleryError
            If the record is gone (reason ``missing``) or damaged (``damaged``).
        """
        path = self.path / RECORD
        try:
            state = os.stat(path)
            seen = (state.st_ino, state.st_mtime_ns, state.st_size)
            if seen == self._seen:
                return
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["format"] != FORMAT:
                raise GalleryError(
                    f"{self.path} is a gallery of the format {record['format']}, this version reads {FORMAT}.",
                    "Open it with the version of ipse that wrote it, export it there and import it here.",
                    reason="damaged",
                )
            generation = record["generation"]
        except (FileNotFoundError, NotADirectoryError) as error:
            raise GalleryError(
                f"There is no gallery in {self.path}.", "Check the path, or create one.", reason="missing"
            ) from error
        except OSError as error:
            raise GalleryError(
                f"Cannot read {path}: {error.strerror}.", "Check that you may read it.", reason="missing"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise GalleryError(
                f"{path} is damaged: {error}.", "Restore it from a backup, or import an export.", reason="damaged"
            ) from error
        if generation != self._record.get("generation"):
            self._close()
        self._record, self._seen = record, seen

    def read(self, query: Callable[[Table], Result]) -> Result:
        """Run a query on the table as it is now.

        Another process may replace the generation under the query; then it is run once more on the new one.

        Raises
        ------
        GalleryError
            If the data cannot be read (reason ``damaged``).
        """
        return self._retried(lambda: query(self._opened()))

    def search(self, query: Callable[[AsyncTable], Awaitable[Result]]) -> Result:
        """As `read`, for queries that run side by side.

        Raises
        ------
        GalleryError
            As `read`.
        """
        from lancedb.background_loop import LOOP

        async def run() -> Result:
            if self._async_table is None:
                self._async_table = await _open_async_table(self.path / self._record["generation"])
            return await query(self._async_table)

        return self._retried(lambda: LOOP.run(run()))

    def snapshot(self) -> snapshot.Snapshot | None:
        """The copy of the table as it is now, where there is one; to be read in the table's place.

        Raises
        ------
        GalleryError
            If the record is gone (reason ``missing``) or damaged (``damaged``).
        """
        self.refresh()
        generation = self._record["generation"]
        try:
            state = snapshot.state_of(self.path / generation, TABLE)
        except OSError:
            # Replaced just now, or damaged; reading the table finds out.
            return None
        if self._snapshot[0] != generation + state:
            self._snapshot = (generation + state, snapshot.load(self.path / generation, state))
        return self._snapshot[1]

    def keep_snapshot(self) -> None:
        """Make a copy of the table where there is none of it as it is now; where somebody else writes, leave it."""
        if self.snapshot():
            return
        try:
            with _locked(self.path, 0) as lock:
                self.refresh()
                if os.fstat(lock).st_size:
                    return
                generation = self.path / self._record["generation"]
                snapshot.save(generation, snapshot.state_of(generation, TABLE), self._opened())
        except (OSError, GalleryError):
            return
        self._snapshot = ("", None)

    def _retried(self, query: Callable[[], Result]) -> Result:
        for attempt in range(5):
            self.refresh()
            before = self._seen
            try:
                return query()
            except (OSError, RuntimeError, ValueError) as error:
                self._close()
                self.refresh()
                if self._seen == before or attempt == 4:
                    raise GalleryError(
                        f"The data in {self.path} cannot be read: {_brief(error)}",
                        "Restore the folder from a backup, or import an export.",
                        reason="damaged",
                    ) from error
        raise AssertionError("unreachable")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only writer for a while. What an abandoned write left behind is cleared away first.

        Raises
        ------
        GalleryError
            If another process goes on writing for longer than `patience` (reason ``busy``), or the folder cannot be
            written (``unwritable``); then nothing is lost.
        """
        with _writable(self.path), _locked(self.path, self.patience) as lock:
            self._recover(lock)
            _mark(lock, b"writing")
            try:
                yield
            except IpseError:
                # A refusal, before anything was written; after any other failure the mark stays for the next writer.
                if not self._record.get("forgetting"):
                    _mark(lock, b"")
                raise
            except BaseException:
                self._close()
                raise
            _mark(lock, b"")

    def add(self, rows: pa.Table) -> None:
        """Append rows in one commit; call it while `writing`."""
        table = self._opened()
        table.add(rows)
        stats = table.stats()
        if stats["fragment_stats"]["num_fragments"] > _FRAGMENTS + stats["num_rows"] // _ROWS_PER_FRAGMENT:
            _optimize(table, _KEEP_VERSIONS)

    def replace(self, rows: pa.Table) -> None:
        """Put rows in the place of those with the same ``id``, in one commit; call it while `writing`."""
        self._opened().merge_insert("id").when_matched_update_all().execute(rows)

    def update_record(self, **changes: Any) -> None:
        """Change entries of ``gallery.json`` in one atomic step; call it while `writing`."""
        _write_record(self.path, {**self._record, **changes})
        self.refresh()

    def rewrite(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch], **changes: Any) -> None:
        """Replace the whole table, and entries of the record with it, in one atomic step; call it while `writing`.

        Afterwards no file holds anything of the old table.
        """
        generation = _new_generation(self.path, schema, batches)
        self.update_record(generation=generation, **changes)
        _sweep(self.path, keep=generation)

    def optimize(self) -> None:
        """Merge the files of many small writes and drop old versions; call it while `writing`."""
        with self.scratch():
            _optimize(self._opened(), _KEEP_VERSIONS)

    @contextmanager
    def scratch(self) -> Iterator[None]:
        """Have Lance put scratch files, which hold vectors, where a crash does not let them stay; when `writing`."""
        folder = (self.path / f"{_GENERATION}scratch").resolve()
        before = os.environ.get("TMPDIR")
        folder.mkdir(exist_ok=True)
        os.environ["TMPDIR"] = str(folder)
        try:
            yield
        finally:
            if before is None:
                del os.environ["TMPDIR"]
            else:
                os.environ["TMPDIR"] = before
            shutil.rmtree(folder, ignore_errors=True)

    def _opened(self) -> Table:
        if self._table is None:
            self._table = _open_table(self.path / self._record["generation"])
        return self._table

    def _close(self) -> None:
        self._table = self._async_table = None

    def _recover_if_abandoned(self) -> None:
        """Finish or clear away what a killed writer left, unless somebody writes just now or we may not."""
        lock = self.path / LOCK
        try:
            abandoned = lock.stat().st_size > 0 or self._record.get("forgetting")
        except OSError:
            return
        if not abandoned:
            return
        try:
            with _locked(self.path, 0) as file:
                self._recover(file)
                _mark(file, b"")
        except GalleryError as error:
            if error.reason != "busy":
                raise
        except PermissionError:
            return
        except OSError as error:
            if error.errno != errno.EROFS:
                raise

    def _recover(self, lock: int) -> None:
        self.refresh()
        if not os.fstat(lock).st_size:
            return
        _sweep(self.path, keep=self._record["generation"])
        if self._record.get("forgetting"):
            self.drop_people(self._record["forgetting"])
        else:
            # Data files of a write that never committed.
            _optimize(self._opened(), timedelta(0))

    def drop_people(self, people: list[str]) -> None:
        """Remove all rows of these ``person_id`` and every trace of them; call it while `writing`.

        If the process dies, whoever opens the gallery next completes it.

        Raises
        ------
        GalleryError
            If the folder cannot be written (reason ``unwritable``).
        """
        if people != self._record.get("forgetting"):
            self.update_record(forgetting=people)
        gone = ", ".join(f"'{person}'" for person in people)
        table = self._opened()
        try:
            self.rewrite(table.schema, scan(table, f"person_id NOT IN ({gone})"), forgetting=[], index=None)
        except (OSError, RuntimeError) as error:
            raise GalleryError(
                f"Forgetting was begun in {self.path} but could not be finished: {_brief(error)}.",
                "Make room, or see that you may write there; whoever opens the gallery next completes it.",
                reason="unwritable",
            ) from error


def scan(table: Table, where: str | None = None, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Stream a table in bounded memory."""
    query = table.search()
    if where:
        query = query.where(where)
    if columns:
        query = query.select(columns)
    yield from query.to_batches(batch_size=8192)


def _new_generation(folder: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> str:
    import lancedb
    import pyarrow as pa

    raised: list[Exception] = []

    def watched() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except Exception as error:
            # On its way through Lance an error loses its type.
            raised.append(error)
            raise

    generation = _GENERATION + secrets.token_hex(4)
    connection = lancedb.connect(folder / generation)
    try:
        connection.create_table(TABLE, pa.RecordBatchReader.from_batches(schema, watched()), schema=schema)
    except BaseException:
        shutil.rmtree(folder / generation, ignore_errors=True)
        if raised:
            raise raised[0] from None
        raise
    return generation


def _open_table(generation: Path) -> Table:
    import lancedb

    # Interval 0: every query sees what other processes committed.
    return lancedb.connect(generation, read_consistency_interval=timedelta(0)).open_table(TABLE)


async def _open_async_table(generation: Path) -> AsyncTable:
    import lancedb

    connection = await lancedb.connect_async(generation, read_consistency_interval=timedelta(0))
    return await connection.open_table(TABLE)


def _optimize(table: Table, keep: timedelta) -> None:
    with warnings.catch_warnings():
        # Lance warns that other writers may be disturbed; the lock keeps them out.
        warnings.simplefilter("ignore", UserWarning)
        table.optimize(cleanup_older_than=keep, delete_unverified=True)


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    with atomic_write(folder / RECORD) as file:
        file.write((json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())


def _ours(name: str) -> bool:
    return name in (RECORD, LOCK) or name.startswith((_GENERATION, f".{RECORD}."))


def _sweep(folder: Path, keep: str | None) -> None:
    """Delete what writers left that never came to their end; call it under the lock."""
    for entry in folder.iterdir():
        if entry.name.startswith(_GENERATION) and entry.name != keep:
            shutil.rmtree(entry)
        elif entry.name.startswith(f".{RECORD}."):
            entry.unlink()


@contextmanager
def _locked(folder: Path, patience: float) -> Iterator[int]:
    """Hold the folder's lock; the system lets go of it when a process dies, however it dies."""
    import fcntl

    file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        give_up = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= give_up:
                    raise GalleryError(
                        f"Another process is writing to {folder}.", "Try again when it has finished.", reason="busy"
                    ) from None
                time.sleep(0.01)
        yield file
    finally:
        os.close(file)


def _mark(lock: int, text: bytes) -> None:
    """Say in the lock file whether a write is under way, for whoever comes after a crash."""
    if text:
        os.pwrite(lock, text, 0)
    else:
        os.ftruncate(lock, 0)


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Turn failed writes into one clear error."""
    try:
        yield
    except GalleryError:
        raise
    except (OSError, RuntimeError) as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        raise GalleryError(
            f"Cannot write to the gallery in {folder}: {'the disk is full' if full else _brief(error)}. "
            "It holds what it held before.",
            "Make room and try again." if full else "Check that you may write there and that the disk works.",
            reason="unwritable",
        ) from error


def _brief(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__

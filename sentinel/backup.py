"""All that an installation is, in one file: the database, the journal, the secrets kept in SENTINEL_VAR.

The database is read in one snapshot first, the journal after it: so the journal holds everything that the snapshot does not,
and after a restore the drainer goes on from the position that the database names. Nothing is doubled and nothing missing, also
when the gateway serves meanwhile. Writers begin a new boot, and so does the sequence in which administrators' acts are numbered.

The file is a ZIP archive, readable for its owner alone, since it holds secrets:

    manifest.json            what it is, which tables and columns, which partitions, which migrations
    table/<name>             COPY's text format
    secrets/<name>           all but the passwords of the embedded server's roles, which belong to a server, not to its data
    journal/<writer>/<name>  segments, and how far each boot had synced
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import secrets
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson
import psycopg
from psycopg import sql

from audit.drain import partitions
from audit.journal.reader import segments_of, writers_in

__all__ = ["BackupError", "back_up", "check_value", "restore"]

FORMAT = 1
CHUNK = 1024 * 1024
LOG = "audit_auditevent"
SKIPPED = ("django_migrations", "django_session")
SERVER_SECRETS = "postgres-"
#: there while the files of a backup are put in place; `serve` refuses to start beside it
UNFINISHED = "restoring"
#: what reading a damaged archive may raise; zipfile gives the last for a compression it does not know
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, NotImplementedError)


class BackupError(Exception):
    """The backup cannot be written or restored; one line says why."""


# -- writing ----------------------------------------------------------------------------------------------------------------


def back_up(target: Path, connection: psycopg.Connection[Any], var: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Write a backup to a file that appears only when it is whole; gives what it holds."""
    if not target.name or (target.exists() and not target.is_file()):
        raise BackupError(f"{target} is not a file")
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BackupError(f"{target} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "w+b") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive:
                manifest = {"format": FORMAT, "ts": time.time_ns() // 1000, **about}
                manifest |= write_tables(archive, connection)
                manifest["journal"] = write_journal(archive, var / "journal")
                manifest["secrets"] = write_secrets(archive, var / "secrets")
                archive.writestr("manifest.json", orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
        synced(target.parent)
    except OSError as error:
        raise BackupError(f"{error.filename or target}: {error.strerror or error}") from None
    finally:
        draft.unlink(missing_ok=True)
    return manifest


def synced(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_tables(archive: zipfile.ZipFile, connection: psycopg.Connection[Any]) -> dict[str, Any]:
    """Write every table as it is in one snapshot."""
    tables: dict[str, Any] = {}
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        connection.execute("SET LOCAL statement_timeout = 0")
        migrations = connection.execute("SELECT app, name FROM django_migrations ORDER BY 1, 2").fetchall()
        days = [part.day.isoformat() for part in partitions.listed(connection) if part.day]
        for name in table_names(connection):
            columns = columns_of(connection, name)
            query = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(identifiers(columns), sql.Identifier(name))
            rows = 0
            with archive.open(f"table/{name}", "w", force_zip64=True) as out, connection.cursor() as cursor:
                with cursor.copy(query) as copy:
                    for data in copy:
                        out.write(data)
                rows = cursor.rowcount
            tables[name] = {"columns": columns, "rows": rows}
    return {"migrations": [list(row) for row in migrations], "partitions": days, "tables": tables}


def table_names(connection: psycopg.Connection[Any]) -> list[str]:
    """List the tables to keep: all of the schema, the log as a whole."""
    rows = connection.execute(
        "SELECT c.relname FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')"
        " AND NOT c.relispartition ORDER BY 1"
    )
    return [name for (name,) in rows if name not in SKIPPED]


def columns_of(connection: psycopg.Connection[Any], table: str) -> list[str]:
    """List the columns of a table that can be written."""
    rows = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
        " AND attgenerated = '' ORDER BY attnum",
        (table,),
    )
    return [name for (name,) in rows]


def identifiers(names: list[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def write_journal(archive: zipfile.ZipFile, root: Path) -> list[str]:
    """Write the journals; each mark before the segments it speaks of, so that they hold at least as much."""
    written: list[str] = []
    for directory in writers_in(root):
        for boot in sorted(segments_of(directory)):
            with suppress(FileNotFoundError):
                mark = (directory / f"{boot:016d}.mark").read_bytes()
                written.append(f"journal/{directory.name}/{boot:016d}.mark")
                archive.writestr(written[-1], mark)
            for segment in segments_of(directory).get(boot, []):
                name = f"journal/{directory.name}/{segment.path.name}"
                try:
                    source = segment.path.open("rb")
                except FileNotFoundError:
                    continue  # drained and deleted meanwhile: the snapshot may be older, and a gap would tell
                with source, archive.open(name, "w", force_zip64=True) as out:
                    shutil.copyfileobj(source, out, CHUNK)
                written.append(name)
    return written


def write_secrets(archive: zipfile.ZipFile, folder: Path) -> list[str]:
    """Write the secrets kept for this installation."""
    written = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.is_file() and not path.name.startswith((".", SERVER_SECRETS)):
            archive.writestr(f"secrets/{path.name}", path.read_bytes())
            written.append(path.name)
    return written


def check_value(secret: bytes) -> str:
    """Make a value that tells whether two installations have the same secret, and nothing of it."""
    return hmac.new(secret, b"sentinel backup check", hashlib.sha256).hexdigest()[:16]


# -- restoring --------------------------------------------------------------------------------------------------------------


@contextmanager
def opened(source: Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, Any]]]:
    """Open a backup and read what it says of itself."""
    try:
        with zipfile.ZipFile(source) as archive:
            manifest = orjson.loads(archive.read("manifest.json"))
            if not isinstance(manifest, dict):
                raise ValueError("no manifest")
            if manifest.get("format") != FORMAT:
                raise BackupError(f"{source} is a backup of another format ({manifest.get('format')})")
            if not is_whole(manifest):
                raise ValueError("not a manifest of this format")
            yield archive, manifest
    except DAMAGED:
        raise BackupError(f"{source} is not a whole backup") from None
    except OSError as error:
        raise BackupError(f"{source} cannot be read: {error.strerror}") from None


def is_whole(manifest: dict[str, Any]) -> bool:
    """Say whether a manifest has what a restore reads of it."""
    texts = ("partitions", "journal", "secrets")
    tables, migrations = manifest.get("tables"), manifest.get("migrations")
    return (
        isinstance(tables, dict)
        and all(isinstance(table, dict) and isinstance(table.get("columns"), list) for table in tables.values())
        and isinstance(migrations, list)
        and all(isinstance(row, list) and len(row) == 2 for row in migrations)
        and all(isinstance(manifest.get(name), list) for name in texts)
        and all(isinstance(item, str) for name in texts for item in manifest[name])
        and isinstance(manifest.get("check"), dict)
    )


def restore(
    source: Path, connection: psycopg.Connection[Any], var: Path, check: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Fill an empty installation from a backup; raises BackupError when it cannot be done, as `check` of its manifest may.

    Until the files are put in place nothing is changed. When that fails, a mark stays with which `serve` does not start.
    """
    with opened(source) as (archive, manifest), exclusive(var):
        damaged = archive.testzip()
        if damaged is not None:
            raise BackupError(f"{source} is damaged at {damaged}")
        refuse_unfit(connection, var, manifest)
        check(manifest)
        targets = places(var, manifest)
        with connection.transaction():
            read_tables(archive, connection, manifest)
            # Whoever numbers from now on must never give out a number that was given out after the backup was made.
            connection.execute(
                "UPDATE audit_writerposition SET closed_at = now() WHERE closed_at IS NULL AND writer LIKE '%-d'"
            )
            try:
                put_files(archive, var, targets)
            except OSError as error:
                raise BackupError(f"{error.filename or var}: {error.strerror or error}") from None
        (var / UNFINISHED).unlink(missing_ok=True)
        synced(var)
    return manifest


@contextmanager
def exclusive(var: Path) -> Iterator[None]:
    """Keep a gateway from starting meanwhile, and refuse while one runs."""
    descriptor = os.open(var / "serve.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError(f"a gateway runs on {var}; stop it first") from None
        yield
    finally:
        os.close(descriptor)


def refuse_unfit(connection: psycopg.Connection[Any], var: Path, manifest: dict[str, Any]) -> None:
    """Refuse a place that is not empty, or a schema that is not the backup's."""
    for table in (LOG, "audit_outboxevent", "policies_apikey", "proxy_upstream", "sentinel_user"):
        known = connection.execute("SELECT to_regclass(%s)", (table,)).fetchone()
        if (
            known
            and known[0]
            and connection.execute(sql.SQL("SELECT 1 FROM {} LIMIT 1").format(sql.Identifier(table))).fetchone()
        ):
            raise BackupError(f"the database is not empty ({table} has rows); restore into a new one")
    if any(segments_of(directory) for directory in writers_in(var / "journal")):
        raise BackupError(f"{var / 'journal'} is not empty; restore into a new SENTINEL_VAR")
    here = {tuple(row) for row in connection.execute("SELECT app, name FROM django_migrations")}
    there = {tuple(row) for row in manifest["migrations"]}
    if here != there:
        newer = sorted(f"{app}.{name}" for app, name in there - here)
        older = sorted(f"{app}.{name}" for app, name in here - there)
        what = f"it has {newer[0]}" if newer else f"it lacks {older[0]}"
        raise BackupError(
            f"the backup is of another version ({what}); restore with the version that made it, then upgrade"
        )


def read_tables(archive: zipfile.ZipFile, connection: psycopg.Connection[Any], manifest: dict[str, Any]) -> None:
    """Fill the tables; triggers of our own sleep meanwhile, references between tables are checked at the end."""
    connection.execute("SET LOCAL statement_timeout = 0")
    for day in manifest["partitions"]:
        connection.execute("SELECT audit_create_partition(%s::date)", (day,))
    names = [name for name in manifest["tables"] if name in set(table_names(connection))]
    replaced = [name for name in names if name != LOG]
    for name in replaced:
        connection.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(sql.Identifier(name)))
    connection.execute(sql.SQL("TRUNCATE {}").format(identifiers(replaced)))
    for name in names:
        columns = manifest["tables"][name]["columns"]
        query = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(name), identifiers(columns))
        with archive.open(f"table/{name}") as data, connection.cursor() as cursor, cursor.copy(query) as copy:
            while piece := data.read(CHUNK):
                copy.write(piece)
    connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    for name in replaced:
        connection.execute(sql.SQL("ALTER TABLE {} ENABLE TRIGGER USER").format(sql.Identifier(name)))
        for column in manifest["tables"][name]["columns"]:
            sequence = connection.execute("SELECT pg_get_serial_sequence(%s, %s)", (name, column)).fetchone()
            if sequence and sequence[0]:
                last = sql.SQL("SELECT setval(%s, greatest((SELECT max({}) FROM {}), 1))")
                connection.execute(last.format(sql.Identifier(column), sql.Identifier(name)), (sequence[0],))


def places(var: Path, manifest: dict[str, Any]) -> dict[str, Path]:
    """Where each file of the journal and each secret belongs."""
    names = [*manifest["journal"], *(f"secrets/{name}" for name in manifest["secrets"])]
    targets = {name: (var / name).resolve() for name in names}
    for name, target in targets.items():
        if not any(target.is_relative_to((var / folder).resolve()) for folder in ("journal", "secrets")):
            raise BackupError(f"the backup holds a file outside of its place: {name!r}")
    return targets


def put_files(archive: zipfile.ZipFile, var: Path, targets: dict[str, Path]) -> None:
    """Put the journal and the secrets where they belong."""
    with open(var / UNFINISHED, "wb", opener=private) as mark:
        os.fsync(mark.fileno())
    synced(var)
    for name, target in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = target.with_name(f".{target.name}.restored")
        with archive.open(name) as source, open(draft, "wb", opener=private) as out:
            shutil.copyfileobj(source, out, CHUNK)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(target)
    for folder in {target.parent for target in targets.values()}:
        synced(folder)


def private(path: str, flags: int) -> int:
    """Open a file for its owner alone."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)

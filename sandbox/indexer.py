"""A stand-in for artwork-indexer: carries out queued events against the stand-in archive.org.

It follows the real one's steps, because other programs observe each of them. An event is locked,
and set running a quarter of a second later. Events run in the order of creation, one at a time per
indexer, and several indexers share the queue. A failed attempt puts the event back for an hour,
then two, until its attempts are used up; events that depend on it wait for it, and fail with it. An
idle indexer fails events that began to run too late.
"""

from __future__ import annotations

import argparse
import signal
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import psycopg
from psycopg.rows import class_row

from sandbox.entities import EntityType
from sandbox.formats import (
    ARCHIVES,
    Listed,
    image_name,
    index_document,
    index_json,
    item_name,
    xml_name,
)

MAX_ATTEMPTS = 5

_TIMEOUT_S = 30.0

# The services are on this machine, so a proxy for outside connections must not be used.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

# The oldest event that may run now: each failed attempt makes the wait an hour longer. A missing
# parent blocks nothing.
_NEXT = """
SELECT id, entity_type, action, message, depends_on, created
  FROM artwork_indexer.event_queue event
 WHERE state = 'queued'
   AND attempts < %(max_attempts)s
   AND last_updated <= now() - attempts * make_interval(secs => %(retry_delay_s)s)
   AND NOT EXISTS (
       SELECT FROM artwork_indexer.event_queue parent
        WHERE parent.id = ANY (event.depends_on) AND parent.state <> 'completed')
 ORDER BY created, id
 LIMIT 1
   FOR UPDATE SKIP LOCKED
"""

_BEGIN = """
UPDATE artwork_indexer.event_queue
   SET state = 'running', attempts = attempts + 1
 WHERE id = %(id)s
"""

_COMPLETE = """
UPDATE artwork_indexer.event_queue
   SET state = 'completed'
 WHERE id = %(id)s
"""

# Back into the queue, unless the attempts are used up or an identical event is queued already.
_FAIL = """
UPDATE artwork_indexer.event_queue event
   SET state = CASE
           WHEN attempts >= %(max_attempts)s OR EXISTS (
                SELECT FROM artwork_indexer.event_queue same
                 WHERE same.state = 'queued'
                   AND same.action = event.action
                   AND same.message = event.message
                   AND same.id <> event.id
                   FOR UPDATE)
           THEN 'failed'::artwork_indexer.event_state
           ELSE 'queued'::artwork_indexer.event_state
       END
 WHERE id = %(id)s
"""

_EXPLAIN = """
INSERT INTO artwork_indexer.event_failure_reason (event, failure_reason) VALUES (%s, %s)
"""

# An event whose parent failed can never run.
_FAIL_DEPENDANTS = """
WITH RECURSIVE dependant AS (
    SELECT child.id
      FROM artwork_indexer.event_queue parent
      JOIN artwork_indexer.event_queue child ON parent.id = ANY (child.depends_on)
     WHERE parent.id = %(id)s AND parent.state = 'failed'
    UNION
    SELECT child.id
      FROM dependant
      JOIN artwork_indexer.event_queue child ON dependant.id = ANY (child.depends_on)
), failed AS (
    UPDATE artwork_indexer.event_queue SET state = 'failed'
     WHERE id IN (SELECT id FROM dependant)
    RETURNING id
)
INSERT INTO artwork_indexer.event_failure_reason (event, failure_reason)
SELECT id, format('event %%s, which this one depends on, has failed', %(id)s) FROM failed
"""

# Both by an idle indexer. What counts is when an event began after its creation, not for how long
# it has been running.
_FORGET = """
DELETE FROM artwork_indexer.event_queue
 WHERE state = 'completed' AND now() - created > interval '90 days'
"""

_TIME_OUT = """
WITH failed AS (
    UPDATE artwork_indexer.event_queue SET state = 'failed'
     WHERE state = 'running' AND last_updated - created > interval '2.5 minutes'
    RETURNING id
)
INSERT INTO artwork_indexer.event_failure_reason (event, failure_reason)
SELECT id, 'it was running 2.5 minutes after it was created' FROM failed
"""

_AGE = """
UPDATE artwork_indexer.event_queue
   SET created = created - %(length)s, last_updated = last_updated - %(length)s
"""

# A later request to copy the image must still find it.
_LATER_COPY = """
SELECT id
  FROM artwork_indexer.event_queue
 WHERE state = 'queued'
   AND action = 'copy_image'
   AND created > %(created)s
   AND message @> jsonb_build_object(
           'artwork_id', %(artwork_id)s::bigint,
           'old_gid', %(gid)s::text,
           'suffix', %(suffix)s::text)
 LIMIT 1
"""

_LISTING = """
SELECT listing.id, suffix, types, is_front, {back}, comment, approved, edit
  FROM {schema}.index_listing listing
  JOIN cover_art_archive.image_type USING (mime_type)
  JOIN musicbrainz.{entity} entity ON entity.id = listing.{entity}
 WHERE entity.gid = %s
 ORDER BY ordering
"""

_LISTINGS = {
    EntityType.RELEASE: _LISTING.format(
        back="is_back", schema="cover_art_archive", entity="release"
    ).encode(),
    EntityType.EVENT: _LISTING.format(
        back="NULL", schema="event_art_archive", entity="event"
    ).encode(),
}
_INCLUDES = {EntityType.RELEASE: "artists", EntityType.EVENT: "artist-rels+place-rels"}


@dataclass(frozen=True, slots=True)
class Event:
    """One row of the queue."""

    id: int
    entity_type: Literal["release", "event"]
    action: Literal["index", "copy_image", "delete_image", "deindex", "noop"]
    message: dict[str, Any]
    depends_on: list[int] | None
    created: Any


class EventError(Exception):
    """An event could not be carried out; the message says why."""


def advance(conn: psycopg.Connection, length: timedelta) -> None:
    """Move the time of all indexers ahead, by making everything in the queue older."""
    conn.execute(_AGE, {"length": length})


class Indexer:
    """One indexer.

    Parameters
    ----------
    dsn
        The database with the queue.
    archive_url, musicbrainz_url
        The services.
    seconds_per_event
        How long an event takes at least.
    retry_delay_s
        By how much longer an event waits after each failed attempt.
    taking_s
        How long an event is locked before it is set running.
    clean_up_every_s
        How often an idle indexer fails events whose time has run out.
    """

    def __init__(
        self,
        dsn: str,
        archive_url: str,
        musicbrainz_url: str,
        *,
        seconds_per_event: float = 0.0,
        retry_delay_s: float = 3600.0,
        taking_s: float = 0.25,
        clean_up_every_s: float = 150.0,
    ) -> None:
        self.dsn = dsn
        self._archive_url = archive_url
        self._musicbrainz_url = musicbrainz_url
        self._seconds_per_event = seconds_per_event
        self._retry_delay_s = retry_delay_s
        self._taking_s = taking_s
        self._clean_up_every_s = clean_up_every_s
        self._cleans_up_at = 0.0
        self._stop_flag = threading.Event()

    def stop(self) -> None:
        """Make `run` and `run_until_idle` return after the current event."""
        self._stop_flag.set()

    def run(self, poll_s: float = 0.1) -> None:
        """Work until `stop` is called."""
        with self._connect() as conn:
            while not self._stop_flag.is_set():
                if not self.run_one(conn):
                    self._stop_flag.wait(poll_s)

    def run_until_idle(self) -> int:
        """Work until no event can run now; return how many have run."""
        done = 0
        with self._connect() as conn:
            while not self._stop_flag.is_set() and self.run_one(conn):
                done += 1
        return done

    def run_one(self, conn: psycopg.Connection) -> bool:
        """Run the next event; return False if there is none. `conn` is in autocommit mode."""
        event = self._take(conn)
        if event is None:
            self._clean_up(conn)
            return False
        started = time.monotonic()
        try:
            self._carry_out(conn, event)
            self._stop_flag.wait(started + self._seconds_per_event - time.monotonic())
        except (EventError, OSError, KeyError) as error:
            self._put_back(conn, event, repr(error))
        else:
            conn.execute(_COMPLETE, {"id": event.id})
        return True

    def _take(self, conn: psycopg.Connection) -> Event | None:
        limits = {"max_attempts": MAX_ATTEMPTS, "retry_delay_s": self._retry_delay_s}
        with conn.transaction(), conn.cursor(row_factory=class_row(Event)) as cursor:
            event = cursor.execute(_NEXT, limits).fetchone()
            if event is not None:
                time.sleep(self._taking_s)
                conn.execute(_BEGIN, {"id": event.id})
        return event

    def _put_back(self, conn: psycopg.Connection, event: Event, reason: str) -> None:
        # In this order: a trigger that deletes the event at once would leave the reason without a
        # row to refer to.
        with conn.transaction():
            conn.execute(_FAIL, {"id": event.id, "max_attempts": MAX_ATTEMPTS})
            conn.execute(_EXPLAIN, (event.id, reason))
            conn.execute(_FAIL_DEPENDANTS, {"id": event.id})

    def _clean_up(self, conn: psycopg.Connection) -> None:
        if time.monotonic() >= self._cleans_up_at:
            conn.execute(_FORGET)
            conn.execute(_TIME_OUT)
            self._cleans_up_at = time.monotonic() + self._clean_up_every_s

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(self.dsn, autocommit=True, application_name="artwork-indexer")

    def _carry_out(self, conn: psycopg.Connection, event: Event) -> None:
        message = event.message
        match event.action:
            case "index":
                self._index(conn, EntityType(event.entity_type), message["gid"])
            case "deindex":
                self._delete(message["gid"], "index.json")
            case "delete_image":
                self._delete_image(conn, event)
            case "copy_image":
                self._copy_image(EntityType(event.entity_type), message)
            case "noop":
                if message.get("fail"):
                    raise EventError("this event was made to fail")

    def _index(self, conn: psycopg.Connection, entity_type: EntityType, gid: str) -> None:
        rows = conn.execute(_LISTINGS[entity_type], (gid,)).fetchall()
        images = [Listed(row[0], row[1], tuple(row[2]), *row[3:]) for row in rows]
        document = index_document(entity_type, gid, images)
        self._put(entity_type, gid, "index.json", index_json(document))
        includes = _INCLUDES[entity_type]
        xml = _send(f"{self._musicbrainz_url}/ws/2/{entity_type}/{gid}?inc={includes}")
        self._put(entity_type, gid, xml_name(gid), xml)

    def _delete_image(self, conn: psycopg.Connection, event: Event) -> None:
        message = event.message
        if event.depends_on is None:
            later = conn.execute(_LATER_COPY, {"created": event.created, **message}).fetchone()
            if later is not None:
                raise EventError(f"event {later[0]} still wants to copy this image")
        gid = message["gid"]
        self._delete(gid, image_name(gid, message["artwork_id"], message["suffix"]))

    def _copy_image(self, entity_type: EntityType, message: dict[str, Any]) -> None:
        artwork_id, suffix = message["artwork_id"], message["suffix"]
        old_gid, new_gid = message["old_gid"], message["new_gid"]
        source = f"/{item_name(old_gid)}/{image_name(old_gid, artwork_id, suffix)}"
        name = image_name(new_gid, artwork_id, suffix)
        self._put(entity_type, new_gid, name, b"", {"x-amz-copy-source": source})

    def _put(
        self,
        entity_type: EntityType,
        gid: str,
        name: str,
        content: bytes,
        headers: dict[str, str] | None = None,
    ) -> None:
        meta = {
            "x-archive-meta-collection": ARCHIVES[entity_type].collection,
            "x-archive-meta-mediatype": "image",
            "x-archive-meta-noindex": "true",
        }
        _send(self._file_url(gid, name), "PUT", content, {**meta, **(headers or {})})

    def _delete(self, gid: str, name: str) -> None:
        _send(self._file_url(gid, name), "DELETE")

    def _file_url(self, gid: str, name: str) -> str:
        return f"{self._archive_url}/s3/{item_name(gid)}/{name}"


def _send(
    url: str,
    method: str = "GET",
    content: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> bytes:
    request = urllib.request.Request(url, content, headers or {}, method=method)
    try:
        with _DIRECT.open(request, timeout=_TIMEOUT_S) as answer:
            body: bytes = answer.read()
    except urllib.error.HTTPError as error:
        raise EventError(f"{method} {url} was answered with {error.code}") from error
    return body


def _main() -> None:
    parser = argparse.ArgumentParser(description="carry out queued events until stopped")
    parser.add_argument("dsn")
    parser.add_argument("archive_url")
    parser.add_argument("musicbrainz_url")
    parser.add_argument("--seconds-per-event", type=float, default=0.0)
    arguments = parser.parse_args()
    indexer = Indexer(
        arguments.dsn,
        arguments.archive_url,
        arguments.musicbrainz_url,
        seconds_per_event=arguments.seconds_per_event,
    )
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: indexer.stop())
    indexer.run()


if __name__ == "__main__":
    _main()

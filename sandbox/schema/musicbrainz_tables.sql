-- MusicBrainz: entities, their redirects and deletions, edits, and the two art archives.

CREATE SCHEMA musicbrainz;
CREATE SCHEMA cover_art_archive;
CREATE SCHEMA event_art_archive;

CREATE TYPE musicbrainz.cover_art_presence AS ENUM ('absent', 'present', 'darkened');
CREATE TYPE musicbrainz.event_art_presence AS ENUM ('absent', 'present', 'darkened');

CREATE TABLE musicbrainz.release (
    id             SERIAL,
    gid            UUID NOT NULL,
    name           VARCHAR NOT NULL,
    artist_credit  INTEGER NOT NULL,
    language       INTEGER,
    barcode        VARCHAR(255),
    last_updated   TIMESTAMPTZ DEFAULT now()
);

CREATE TABLE musicbrainz.artist (
    id         SERIAL,
    gid        UUID NOT NULL,
    name       VARCHAR NOT NULL,
    sort_name  VARCHAR NOT NULL
);

CREATE TABLE musicbrainz.artist_credit_name (
    artist_credit  INTEGER NOT NULL,
    position       SMALLINT NOT NULL,
    artist         INTEGER NOT NULL,
    name           VARCHAR NOT NULL,
    join_phrase    TEXT NOT NULL DEFAULT ''
);

CREATE TABLE musicbrainz.language (id SERIAL, iso_code_2t CHAR(3), iso_code_3 CHAR(3));

INSERT INTO musicbrainz.language (iso_code_3) VALUES
    ('eng'), ('deu'), ('jpn'), ('spa'), ('rus'), ('fra'), ('por'), ('zxx');

CREATE TABLE musicbrainz.release_country (
    release     INTEGER NOT NULL,
    country     INTEGER NOT NULL,
    date_year   SMALLINT,
    date_month  SMALLINT,
    date_day    SMALLINT
);

CREATE TABLE musicbrainz.release_unknown_country (
    release     INTEGER NOT NULL,
    date_year   SMALLINT,
    date_month  SMALLINT,
    date_day    SMALLINT
);

CREATE VIEW musicbrainz.release_event AS
SELECT release, date_year, date_month, date_day, country
  FROM musicbrainz.release_country
 UNION ALL
SELECT release, date_year, date_month, date_day, NULL
  FROM musicbrainz.release_unknown_country;

CREATE TABLE musicbrainz.event (
    id            SERIAL,
    gid           UUID NOT NULL,
    name          VARCHAR NOT NULL,
    last_updated  TIMESTAMPTZ DEFAULT now()
);

CREATE TABLE musicbrainz.release_gid_redirect (gid UUID NOT NULL, new_id INTEGER NOT NULL);
CREATE TABLE musicbrainz.event_gid_redirect (gid UUID NOT NULL, new_id INTEGER NOT NULL);

CREATE TABLE musicbrainz.deleted_entity (
    gid         UUID NOT NULL,
    data        JSONB NOT NULL,
    deleted_at  TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE TABLE musicbrainz.release_meta (
    id                  INTEGER NOT NULL,
    date_added          TIMESTAMPTZ DEFAULT now(),
    amazon_asin         VARCHAR(10),
    cover_art_presence  musicbrainz.cover_art_presence NOT NULL DEFAULT 'absent'
);

CREATE TABLE musicbrainz.event_meta (
    id                  INTEGER NOT NULL,
    event_art_presence  musicbrainz.event_art_presence NOT NULL DEFAULT 'absent'
);

CREATE TABLE musicbrainz.edit (
    id          SERIAL,
    open_time   TIMESTAMPTZ DEFAULT now(),
    close_time  TIMESTAMPTZ
);

CREATE TABLE musicbrainz.edit_event (edit INTEGER NOT NULL, event INTEGER NOT NULL);

CREATE TABLE cover_art_archive.image_type (mime_type TEXT NOT NULL, suffix TEXT NOT NULL);

INSERT INTO cover_art_archive.image_type (mime_type, suffix) VALUES
    ('image/jpeg', 'jpg'), ('image/png', 'png'), ('image/gif', 'gif'), ('application/pdf', 'pdf');

CREATE TABLE cover_art_archive.art_type (id SERIAL, name TEXT NOT NULL);

INSERT INTO cover_art_archive.art_type (name) VALUES
    ('Front'), ('Back'), ('Booklet'), ('Medium'), ('Obi'), ('Spine'), ('Track'), ('Other');

CREATE TABLE cover_art_archive.cover_art (
    id         BIGINT NOT NULL,
    release    INTEGER NOT NULL,
    comment    TEXT NOT NULL DEFAULT '',
    edit       INTEGER NOT NULL,
    ordering   INTEGER NOT NULL CHECK (ordering > 0),
    mime_type  TEXT NOT NULL
);

CREATE TABLE cover_art_archive.cover_art_type (id BIGINT NOT NULL, type_id INTEGER NOT NULL);

CREATE TABLE event_art_archive.art_type (id SERIAL, name TEXT NOT NULL);

INSERT INTO event_art_archive.art_type (name) VALUES
    ('Poster'), ('Flyer'), ('Ticket'), ('Banner'), ('Setlist'), ('Program'), ('Map'), ('Other');

CREATE TABLE event_art_archive.event_art (
    id         BIGINT NOT NULL,
    event      INTEGER NOT NULL,
    comment    TEXT NOT NULL DEFAULT '',
    edit       INTEGER NOT NULL,
    ordering   INTEGER NOT NULL CHECK (ordering > 0),
    mime_type  TEXT NOT NULL
);

CREATE TABLE event_art_archive.event_art_type (id BIGINT NOT NULL, type_id INTEGER NOT NULL);

-- The source of index.json. Of several images of type 1, only the first is the front; the order of
-- types means nothing.
CREATE VIEW cover_art_archive.index_listing AS
SELECT art.*,
       edit.close_time IS NOT NULL AS approved,
       coalesce(art.id = (
           SELECT id
             FROM cover_art_archive.cover_art
             JOIN cover_art_archive.cover_art_type USING (id)
            WHERE cover_art.release = art.release AND type_id = 1
            ORDER BY ordering
            LIMIT 1), FALSE) AS is_front,
       coalesce(art.id = (
           SELECT id
             FROM cover_art_archive.cover_art
             JOIN cover_art_archive.cover_art_type USING (id)
            WHERE cover_art.release = art.release AND type_id = 2
            ORDER BY ordering
            LIMIT 1), FALSE) AS is_back,
       ARRAY(
           SELECT name
             FROM cover_art_archive.cover_art_type
             JOIN cover_art_archive.art_type ON art_type.id = type_id
            WHERE cover_art_type.id = art.id) AS types
  FROM cover_art_archive.cover_art art
  LEFT JOIN musicbrainz.edit ON edit.id = art.edit;

CREATE VIEW event_art_archive.index_listing AS
SELECT art.*,
       edit.close_time IS NOT NULL AS approved,
       coalesce(art.id = (
           SELECT id
             FROM event_art_archive.event_art
             JOIN event_art_archive.event_art_type USING (id)
            WHERE event_art.event = art.event AND type_id = 1
            ORDER BY ordering
            LIMIT 1), FALSE) AS is_front,
       ARRAY(
           SELECT name
             FROM event_art_archive.event_art_type
             JOIN event_art_archive.art_type ON art_type.id = type_id
            WHERE event_art_type.id = art.id) AS types
  FROM event_art_archive.event_art art
  LEFT JOIN musicbrainz.edit ON edit.id = art.edit;

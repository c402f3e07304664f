-- MusicBrainz: entities, their redirects and deletions, edits, and the two art archives.

CREATE SCHEMA musicbrainz;
CREATE SCHEMA cover_art_archive;
CREATE SCHEMA event_art_archive;

CREATE TYPE musicbrainz.cover_art_presence AS ENUM ('absent', 'present', 'darkened');
CREATE TYPE musicbrainz.event_art_presence AS ENUM ('absent', 'present', 'darkened');

CREATE TABLE musicbrainz.release (
    id             SERIAL PRIMARY KEY,
    gid            UUID NOT NULL,
    name           VARCHAR NOT NULL,
    artist_credit  INTEGER NOT NULL,
    language       INTEGER,
    barcode        VARCHAR(255),
    last_updated   TIMESTAMPTZ DEFAULT now()
);
CREATE UNIQUE INDEX release_idx_gid ON musicbrainz.release (gid);

CREATE TABLE musicbrainz.artist (
    id         SERIAL PRIMARY KEY,
    gid        UUID NOT NULL,
    name       VARCHAR NOT NULL,
    sort_name  VARCHAR NOT NULL
);

CREATE TABLE musicbrainz.artist_credit_name (
    artist_credit  INTEGER NOT NULL,
    position       SMALLINT NOT NULL,
    artist         INTEGER NOT NULL,
    name           VARCHAR NOT NULL,
    join_phrase    TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (artist_credit, position)
);

CREATE TABLE musicbrainz.language (
    id           SERIAL PRIMARY KEY,
    iso_code_2t  CHAR(3),
    iso_code_3   CHAR(3)
);

INSERT INTO musicbrainz.language (iso_code_3) VALUES
    ('eng'), ('deu'), ('jpn'), ('spa'), ('rus'), ('fra'), ('por'), ('zxx');

CREATE TABLE musicbrainz.release_country (
    release     INTEGER NOT NULL,
    country     INTEGER NOT NULL,
    date_year   SMALLINT,
    date_month  SMALLINT,
    date_day    SMALLINT
);
CREATE INDEX release_country_idx_release ON musicbrainz.release_country (release);

CREATE TABLE musicbrainz.release_unknown_country (
    release     INTEGER PRIMARY KEY,
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
    id            SERIAL PRIMARY KEY,
    gid           UUID NOT NULL,
    name          VARCHAR NOT NULL,
    last_updated  TIMESTAMPTZ DEFAULT now()
);
CREATE UNIQUE INDEX event_idx_gid ON musicbrainz.event (gid);

CREATE TABLE musicbrainz.release_gid_redirect (
    gid     UUID PRIMARY KEY,
    new_id  INTEGER NOT NULL REFERENCES musicbrainz.release (id)
);
CREATE INDEX release_gid_redirect_idx_new_id ON musicbrainz.release_gid_redirect (new_id);

CREATE TABLE musicbrainz.event_gid_redirect (
    gid     UUID PRIMARY KEY,
    new_id  INTEGER NOT NULL REFERENCES musicbrainz.event (id)
);
CREATE INDEX event_gid_redirect_idx_new_id ON musicbrainz.event_gid_redirect (new_id);

CREATE TABLE musicbrainz.deleted_entity (
    gid         UUID PRIMARY KEY,
    data        JSONB NOT NULL,
    deleted_at  TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE TABLE musicbrainz.release_meta (
    id                  INTEGER PRIMARY KEY REFERENCES musicbrainz.release (id) ON DELETE CASCADE,
    date_added          TIMESTAMPTZ DEFAULT now(),
    amazon_asin         VARCHAR(10),
    cover_art_presence  musicbrainz.cover_art_presence NOT NULL DEFAULT 'absent'
);

CREATE TABLE musicbrainz.event_meta (
    id                  INTEGER PRIMARY KEY REFERENCES musicbrainz.event (id) ON DELETE CASCADE,
    event_art_presence  musicbrainz.event_art_presence NOT NULL DEFAULT 'absent'
);

CREATE TABLE musicbrainz.edit (
    id          SERIAL PRIMARY KEY,
    open_time   TIMESTAMPTZ DEFAULT now(),
    close_time  TIMESTAMPTZ
);

CREATE TABLE musicbrainz.edit_event (edit INTEGER, event INTEGER, PRIMARY KEY (edit, event));
CREATE INDEX edit_event_idx ON musicbrainz.edit_event (event);

CREATE TABLE cover_art_archive.image_type (mime_type TEXT PRIMARY KEY, suffix TEXT NOT NULL);

INSERT INTO cover_art_archive.image_type (mime_type, suffix) VALUES
    ('image/jpeg', 'jpg'), ('image/png', 'png'), ('image/gif', 'gif'), ('application/pdf', 'pdf');

CREATE TABLE cover_art_archive.art_type (id SERIAL PRIMARY KEY, name TEXT NOT NULL);

INSERT INTO cover_art_archive.art_type (name) VALUES
    ('Front'), ('Back'), ('Booklet'), ('Medium'), ('Obi'), ('Spine'), ('Track'), ('Other');

CREATE TABLE cover_art_archive.cover_art (
    id         BIGINT PRIMARY KEY,
    release    INTEGER NOT NULL REFERENCES musicbrainz.release (id) ON DELETE CASCADE,
    comment    TEXT NOT NULL DEFAULT '',
    edit       INTEGER NOT NULL,
    ordering   INTEGER NOT NULL CHECK (ordering > 0),
    mime_type  TEXT NOT NULL
);
CREATE INDEX cover_art_idx_release ON cover_art_archive.cover_art (release);

CREATE TABLE cover_art_archive.cover_art_type (
    id       BIGINT REFERENCES cover_art_archive.cover_art (id) ON DELETE CASCADE,
    type_id  INTEGER,
    PRIMARY KEY (id, type_id)
);

CREATE TABLE event_art_archive.art_type (id SERIAL PRIMARY KEY, name TEXT NOT NULL);

INSERT INTO event_art_archive.art_type (name) VALUES
    ('Poster'), ('Flyer'), ('Ticket'), ('Banner'), ('Setlist'), ('Program'), ('Map'), ('Other');

CREATE TABLE event_art_archive.event_art (
    id         BIGINT PRIMARY KEY,
    event      INTEGER NOT NULL REFERENCES musicbrainz.event (id) ON DELETE CASCADE,
    comment    TEXT NOT NULL DEFAULT '',
    edit       INTEGER NOT NULL,
    ordering   INTEGER NOT NULL CHECK (ordering > 0),
    mime_type  TEXT NOT NULL
);
CREATE INDEX event_art_idx_event ON event_art_archive.event_art (event);

CREATE TABLE event_art_archive.event_art_type (
    id       BIGINT REFERENCES event_art_archive.event_art (id) ON DELETE CASCADE,
    type_id  INTEGER,
    PRIMARY KEY (id, type_id)
);

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

-- What a current library has in addition to wxyc.sql: columns, tables, and the triggers.

ALTER TABLE library
    ADD COLUMN alternate_artist_name        VARCHAR(128),
    ADD COLUMN album_artist                 VARCHAR(128),
    ADD COLUMN label                        VARCHAR(128),
    ADD COLUMN plays                        INTEGER NOT NULL DEFAULT 0,
    ADD COLUMN canonical_entity_id          TEXT,
    ADD COLUMN canonical_entity_confidence  REAL,
    ADD COLUMN discogs_unavailable          BOOLEAN NOT NULL DEFAULT FALSE;

CREATE TABLE album_metadata (
    album_id           INTEGER PRIMARY KEY REFERENCES library (id) ON DELETE CASCADE,
    artwork_url        VARCHAR(512),
    discogs_url        VARCHAR(512),
    discogs_artist_id  INTEGER,
    artist_image_url   VARCHAR(512)
);

CREATE TABLE library_identity (
    library_id          INTEGER PRIMARY KEY,
    discogs_master_id   INTEGER,
    discogs_release_id  INTEGER,
    method              TEXT NOT NULL DEFAULT 'lml',
    confidence          REAL NOT NULL
);

-- One row: when the catalogue last changed. Clients fetch all of it again when it changes.
CREATE TABLE library_watermark (
    id                BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (id),
    last_modified_at  TIMESTAMPTZ NOT NULL DEFAULT now()
);
INSERT INTO library_watermark DEFAULT VALUES;

-- Runs with the rights of the writing role, also for a statement that changes no row. It updates
-- the table beside its own.
CREATE FUNCTION touch_library_watermark() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format(
        'UPDATE %I.library_watermark SET last_modified_at = greatest(now(), last_modified_at)',
        TG_TABLE_SCHEMA
    );
    RETURN NULL;
END
$$;

CREATE TRIGGER touch_library_watermark
    AFTER INSERT OR DELETE OR TRUNCATE OR UPDATE OF
        id, artist_id, album_title, artwork_url, legacy_release_id, alternate_artist_name,
        album_artist, label, canonical_entity_id
    ON library FOR EACH STATEMENT EXECUTE FUNCTION touch_library_watermark();

-- Notifies the live site's listeners of each row.
CREATE FUNCTION cdc_notify() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('cdc', json_build_object(
        'table', TG_TABLE_NAME,
        'action', TG_OP,
        'data', to_json(CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END)
    )::text);
    RETURN NULL;
END
$$;

CREATE TRIGGER cdc_library
    AFTER INSERT OR UPDATE OR DELETE ON library FOR EACH ROW EXECUTE FUNCTION cdc_notify();

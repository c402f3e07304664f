-- The library's tables as in the oldest libraries, in the first schema of the search path. Later
-- additions are in wxyc_today.sql.

CREATE TABLE artists (
    id                 SERIAL PRIMARY KEY,
    artist_name        VARCHAR(128) NOT NULL,
    discogs_artist_id  INTEGER
);

CREATE TABLE library (
    id                 SERIAL PRIMARY KEY,
    artist_id          INTEGER NOT NULL REFERENCES artists (id),
    album_title        VARCHAR(128) NOT NULL,
    artwork_url        VARCHAR(512),
    legacy_release_id  INTEGER
);

CREATE INDEX library_artist_id_idx ON library (artist_id);

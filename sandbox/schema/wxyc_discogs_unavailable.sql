-- Newer libraries mark the albums that Discogs is known not to have.

ALTER TABLE library ADD COLUMN discogs_unavailable BOOLEAN NOT NULL DEFAULT FALSE;

-- Albums of the library that library-artwork-url-backfill looked up without a result, so that it does
-- not look them up again at once (--attempts-table). In a schema of its own beside the library:
-- nothing of WXYC's refers to it, and `DROP SCHEMA artwork_backfill CASCADE` removes it.

CREATE TABLE artwork_backfill.library_attempt (
    library_schema  TEXT NOT NULL,          -- one database may hold several libraries
    library_id      BIGINT NOT NULL,
    artist          TEXT NOT NULL,          -- as asked for: a row that is renamed is asked again
    title           TEXT NOT NULL,
    reason          TEXT NOT NULL,
    attempted_at    TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (library_schema, library_id)
);

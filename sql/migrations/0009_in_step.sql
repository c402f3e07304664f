-- To stay in step after a first full audit.

-- Finds the oldest audits of what is done, for `reaudit`.
CREATE INDEX audit_entity_idx_done
    ON artwork_indexer.audit_entity (last_audit_at, id)
    WHERE status IN ('clean', 'legacy');

-- How far archive.org's Changes API has been followed, so that the next run continues there.
CREATE TABLE artwork_indexer.ia_changes (
    -- The share of the gids that is seeded, when several containers divide them up.
    partition_index     INT NOT NULL,
    partition_count     INT NOT NULL,
    -- Leads to the next page. Opaque.
    token               TEXT NULL,
    -- The date from which to ask where there is no token yet: YYYYMMDD, or 0 for everything.
    start_date          TEXT NULL,
    -- The pages still name every item there is, not only what has changed.
    is_cold             BOOLEAN NOT NULL,
    -- When this was begun from a date; changes since that day are known or yet to come.
    started_at          TIMESTAMPTZ NOT NULL DEFAULT now(),
    last_page_at        TIMESTAMPTZ NOT NULL DEFAULT now(),
    -- When the service last said that nothing more was to be had for the moment.
    caught_up_at        TIMESTAMPTZ NULL,
    pages               BIGINT NOT NULL,
    identifiers         BIGINT NOT NULL,
    -- Those that are gids of ours.
    gids                BIGINT NOT NULL,
    PRIMARY KEY (partition_index, partition_count),
    CHECK ((token IS NULL) <> (start_date IS NULL))
);

-- Following changes after a first full audit.

-- Finds the oldest audits of clean and legacy entities, for `reaudit`.
CREATE INDEX audit_entity_idx_done
    ON artwork_indexer.audit_entity (last_audit_at, id)
    WHERE status IN ('clean', 'legacy');

-- The position in archive.org's Changes API, from which the next run continues.
CREATE TABLE artwork_indexer.ia_changes (
    -- The share of the gids that is seeded, if several containers divide them.
    partition_index     INT NOT NULL,
    partition_count     INT NOT NULL,
    -- Leads to the next page; opaque.
    token               TEXT NULL,
    -- The start date if there is no token yet: YYYYMMDD, or 0 for everything.
    start_date          TEXT NULL,
    -- Whether the pages still list every item, not only the changes.
    is_cold             BOOLEAN NOT NULL,
    -- When this was started from a date; later changes are known or still to come.
    started_at          TIMESTAMPTZ NOT NULL DEFAULT now(),
    last_page_at        TIMESTAMPTZ NOT NULL DEFAULT now(),
    -- When the service last said that no more changes were available.
    caught_up_at        TIMESTAMPTZ NULL,
    pages               BIGINT NOT NULL,
    identifiers         BIGINT NOT NULL,
    -- Identifiers among these that are gids.
    gids                BIGINT NOT NULL,
    PRIMARY KEY (partition_index, partition_count),
    CHECK ((token IS NULL) <> (start_date IS NULL))
);

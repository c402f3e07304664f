-- Where a scan of archive.org's collections stands, so that one that was interrupted goes on there.

CREATE TABLE artwork_indexer.ia_scan (
    collection          TEXT NOT NULL,
    -- The share of the gids that the scan seeds, when several containers divide them up.
    partition_index     INT NOT NULL,
    partition_count     INT NOT NULL,
    -- Whether it was made with the rights of an account: without, archive.org hides most items.
    has_rights          BOOLEAN NOT NULL,
    -- Leads to the next page; NULL when the last page is done.
    cursor              TEXT NULL,
    pages               INT NOT NULL,
    identifiers         BIGINT NOT NULL,
    -- Identifiers that are no entity's: the collection's own item, test items.
    foreign_identifiers BIGINT NOT NULL,
    -- Distinct gids, as far as they could be told apart: each run of an interrupted scan for itself.
    gids                BIGINT NOT NULL,
    -- What archive.org itself says is the size of the collection.
    total               BIGINT NULL,
    started_at          TIMESTAMPTZ NOT NULL DEFAULT now(),
    last_page_at        TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (collection, partition_index, partition_count)
);

-- The position of a scan of archive.org's collections, from which an interrupted scan continues.

CREATE TABLE artwork_indexer.ia_scan (
    collection          TEXT NOT NULL,
    -- The share of the gids that the scan seeds, if several containers divide them.
    partition_index     INT NOT NULL,
    partition_count     INT NOT NULL,
    -- Whether the scan had the rights of an account: without, archive.org hides most items.
    has_rights          BOOLEAN NOT NULL,
    -- Leads to the next page; NULL when the last page is done.
    cursor              TEXT NULL,
    pages               INT NOT NULL,
    identifiers         BIGINT NOT NULL,
    -- Identifiers that belong to no entity: the collection's own item, test items.
    foreign_identifiers BIGINT NOT NULL,
    -- Distinct gids; each run of an interrupted scan counts its own.
    gids                BIGINT NOT NULL,
    -- The size of the collection according to archive.org.
    total               BIGINT NULL,
    started_at          TIMESTAMPTZ NOT NULL DEFAULT now(),
    last_page_at        TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (collection, partition_index, partition_count)
);

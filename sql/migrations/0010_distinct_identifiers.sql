-- What a scan has seen, in at most 256 KiB each: pages that overlap must not make it look complete.
-- `seen_gids` are gids of its partition, `seen_others` all other identifiers. NULL where a scan
-- that began before this migration has counted identifiers only.
ALTER TABLE artwork_indexer.ia_scan
    ADD COLUMN seen_gids BYTEA NULL,
    ADD COLUMN seen_others BYTEA NULL;

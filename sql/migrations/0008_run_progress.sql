-- How far each run has come, for people: done, total, rate, eta_s, said (its last words), requests.
ALTER TABLE artwork_indexer.backfill_run ADD COLUMN progress JSONB NOT NULL DEFAULT '{}';

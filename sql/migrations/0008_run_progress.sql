-- The progress of each run, for people: done, total, rate, eta_s, said (last message), requests.
ALTER TABLE artwork_indexer.backfill_run ADD COLUMN progress JSONB NOT NULL DEFAULT '{}';

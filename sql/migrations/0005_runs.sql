-- The runs of every job: who works, since when, what they have done, and requests of people.
--
-- A run writes its heartbeat every few seconds. A run that has not done so for a minute is dead:
-- the next run that notices sets `finished`, and reclaims its rows. No lock here is held by a
-- session, so a connection pool in transaction mode does no harm.

CREATE TABLE artwork_indexer.backfill_run (
    id              UUID PRIMARY KEY,
    job             TEXT NOT NULL,
    version         TEXT NOT NULL,
    host            TEXT NOT NULL,
    who             TEXT NOT NULL,
    options         JSONB NOT NULL DEFAULT '{}',
    started         TIMESTAMPTZ NOT NULL DEFAULT now(),
    heartbeat       TIMESTAMPTZ NOT NULL DEFAULT now(),
    finished        TIMESTAMPTZ NULL,
    -- As in the report; 'dead' if another run found that its heartbeat had stopped.
    outcome         TEXT NULL,
    exit_code       SMALLINT NULL,
    totals          JSONB NOT NULL DEFAULT '{}',
    report          JSONB NULL,
    -- The request of a person, see the command `runs`; NULL for none.
    requested       TEXT NULL CHECK (requested IN ('pause', 'stop')),
    requested_by    TEXT NULL,
    requested_why   TEXT NULL
);

-- The few working runs: each of them looks for dead ones.
CREATE INDEX backfill_run_idx_unfinished
    ON artwork_indexer.backfill_run (heartbeat)
    WHERE finished IS NULL;

CREATE INDEX backfill_run_idx_started
    ON artwork_indexer.backfill_run (started);

-- Jobs whose runs may not work.
CREATE TABLE artwork_indexer.backfill_hold (
    job     TEXT PRIMARY KEY,
    who     TEXT NOT NULL,
    why     TEXT NOT NULL,
    since   TIMESTAMPTZ NOT NULL DEFAULT now()
);

-- The run that holds an entity, while the entity is audit_in_progress.
ALTER TABLE artwork_indexer.audit_entity ADD COLUMN claimed_by UUID NULL;

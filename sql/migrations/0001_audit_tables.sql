-- The audit's own tables, beside artwork-indexer's in its schema.

CREATE TYPE artwork_indexer.audit_entity_status AS ENUM (
    'unchecked',            -- waits for an audit
    'audit_in_progress',    -- claimed by a run; last_audit_at is then the time of the claim
    'clean',                -- no difference worth acting on
    'manual_review',        -- has an open row in needs_manual_review
    'repair_queue',         -- events were queued to mend it
    'legacy'                -- not in MusicBrainz, and nothing left on archive.org
);

CREATE TABLE artwork_indexer.audit_entity (
    id              BIGSERIAL PRIMARY KEY,
    entity_type     artwork_indexer.indexable_entity_type NOT NULL,
    gid             UUID NOT NULL,
    status          artwork_indexer.audit_entity_status NOT NULL DEFAULT 'unchecked',
    -- Larger is sooner.
    priority        SMALLINT NOT NULL DEFAULT 100 CHECK (priority >= 0),
    last_audit_at   TIMESTAMPTZ NULL,
    UNIQUE (entity_type, gid)
);

-- Claims sort by exactly this; without NULLS FIRST every claim would sort the whole table.
CREATE INDEX audit_entity_idx_unchecked
    ON artwork_indexer.audit_entity (priority DESC, last_audit_at NULLS FIRST, id)
    WHERE status = 'unchecked';

-- The few that are under way or not settled: stale claims, verification, people's lists.
CREATE INDEX audit_entity_idx_open
    ON artwork_indexer.audit_entity (status, last_audit_at)
    WHERE status IN ('audit_in_progress', 'manual_review', 'repair_queue');

CREATE TYPE artwork_indexer.manual_review_status AS ENUM ('open', 'resolved', 'wont_fix');

CREATE TABLE artwork_indexer.needs_manual_review (
    id                  BIGSERIAL PRIMARY KEY,
    audit_entity_id     BIGINT NOT NULL
                        REFERENCES artwork_indexer.audit_entity (id) ON DELETE CASCADE,
    review_reason       TEXT NOT NULL,
    status              artwork_indexer.manual_review_status NOT NULL DEFAULT 'open',
    resolution_notes    TEXT,
    resolved_at         TIMESTAMPTZ,
    created_at          TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE UNIQUE INDEX needs_manual_review_idx_open_uniq
    ON artwork_indexer.needs_manual_review (audit_entity_id)
    WHERE status = 'open';

CREATE INDEX needs_manual_review_idx_status_created
    ON artwork_indexer.needs_manual_review (status, created_at);

-- An entity's closed reviews too; and whoever deletes entities looks for reviews of each.
CREATE INDEX needs_manual_review_idx_entity
    ON artwork_indexer.needs_manual_review (audit_entity_id);

-- One row per audit that did not simply find the entity clean.
CREATE TABLE artwork_indexer.audit_result (
    id                  BIGSERIAL PRIMARY KEY,
    audit_entity_id     BIGINT NOT NULL
                        REFERENCES artwork_indexer.audit_entity (id) ON DELETE CASCADE,
    run_id              UUID NOT NULL,
    audited_at          TIMESTAMPTZ NOT NULL DEFAULT now(),
    -- The status that was decided, or 'unreadable' when a service could not answer.
    outcome             TEXT NOT NULL,
    -- [{"check", "severity", "subject", "expected", "actual"}, ...]
    findings            JSONB NOT NULL DEFAULT '[]',
    -- Of artwork_indexer.event_queue. No foreign key: artwork-indexer deletes old events freely.
    event_ids           BIGINT[] NOT NULL DEFAULT '{}'
);

CREATE INDEX audit_result_idx_entity
    ON artwork_indexer.audit_result (audit_entity_id, id DESC);

CREATE INDEX audit_result_idx_run
    ON artwork_indexer.audit_result (run_id);

-- What the dashboard asks about the past, counted as the audit goes along: over millions of results
-- such questions would take minutes.
--
-- Every run has rows of its own, so that runs at work at the same time never wait for each other.

CREATE TABLE artwork_indexer.audit_tally (
    run_id      UUID NOT NULL,
    hour        TIMESTAMPTZ NOT NULL,
    -- The status that was decided.
    outcome     TEXT NOT NULL,
    audits      BIGINT NOT NULL,
    -- Events for artwork-indexer that these audits called for.
    events      BIGINT NOT NULL,
    first_at    TIMESTAMPTZ NOT NULL DEFAULT now(),
    last_at     TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, hour, outcome)
);

CREATE INDEX audit_tally_idx_hour ON artwork_indexer.audit_tally (hour);

CREATE TABLE artwork_indexer.finding_tally (
    run_id      UUID NOT NULL,
    hour        TIMESTAMPTZ NOT NULL,
    check_name  TEXT NOT NULL,
    entities    BIGINT NOT NULL,
    findings    BIGINT NOT NULL,
    -- A few of those entities, the latest; of audit_entity. No foreign key: they are but examples.
    examples    BIGINT[] NOT NULL,
    PRIMARY KEY (run_id, hour, check_name)
);

CREATE INDEX finding_tally_idx_check ON artwork_indexer.finding_tally (check_name, hour);

-- How many entities had which status, at most once an hour, while an audit is at work.
CREATE TABLE artwork_indexer.audit_status_history (
    taken_at    TIMESTAMPTZ NOT NULL,
    status      artwork_indexer.audit_entity_status NOT NULL,
    entities    BIGINT NOT NULL,
    PRIMARY KEY (taken_at, status)
);

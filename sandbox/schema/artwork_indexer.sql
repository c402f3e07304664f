-- The queue of artwork-indexer. Its rules matter to programs that add events: queued events are
-- unique, a row is updated in place, and last_updated changes with every update.

CREATE SCHEMA artwork_indexer;

CREATE TYPE artwork_indexer.indexable_entity_type AS ENUM ('event', 'release');
CREATE TYPE artwork_indexer.event_queue_action AS ENUM
    ('index', 'copy_image', 'delete_image', 'deindex', 'noop');
CREATE TYPE artwork_indexer.event_state AS ENUM ('queued', 'running', 'failed', 'completed');

CREATE TABLE artwork_indexer.event_queue (
    id            BIGSERIAL PRIMARY KEY,
    state         artwork_indexer.event_state NOT NULL DEFAULT 'queued',
    entity_type   artwork_indexer.indexable_entity_type NOT NULL,
    action        artwork_indexer.event_queue_action NOT NULL,
    message       JSONB NOT NULL,
    depends_on    BIGINT[],
    created       TIMESTAMPTZ NOT NULL DEFAULT now(),
    attempts      SMALLINT NOT NULL DEFAULT 0,
    last_updated  TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE UNIQUE INDEX event_queue_idx_queued_uniq
    ON artwork_indexer.event_queue (entity_type, action, message) WHERE state = 'queued';
CREATE INDEX event_queue_idx_state_created ON artwork_indexer.event_queue (state, created);

CREATE TABLE artwork_indexer.event_failure_reason (
    event           BIGINT NOT NULL
                    REFERENCES artwork_indexer.event_queue (id) ON DELETE CASCADE,
    failure_reason  TEXT NOT NULL,
    created         TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE INDEX event_failure_reason_idx_event
    ON artwork_indexer.event_failure_reason (event, created);

CREATE FUNCTION artwork_indexer.b_upd_event_queue() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- A last_updated that the statement sets itself takes precedence.
    IF NEW.last_updated = OLD.last_updated THEN
        NEW.last_updated := now();
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER b_upd_event_queue BEFORE UPDATE ON artwork_indexer.event_queue
    FOR EACH ROW EXECUTE FUNCTION artwork_indexer.b_upd_event_queue();

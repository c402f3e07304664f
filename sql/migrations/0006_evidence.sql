-- Results of previous audits and repairs, for the decisions of later ones.

-- Whether the entity was live at its last audit: one that was, and is merged or deleted now, must
-- be audited again. NULL: unknown.
ALTER TABLE artwork_indexer.audit_entity ADD COLUMN was_live BOOLEAN NULL;

-- [{"code", "check", "subject"}, ...]: review_reason as codes, for programs.
ALTER TABLE artwork_indexer.needs_manual_review ADD COLUMN reasons JSONB NOT NULL DEFAULT '[]';

-- For how many audits in a row, and since when, an entity could not be decided.
CREATE TABLE artwork_indexer.audit_streak (
    audit_entity_id BIGINT NOT NULL
                    REFERENCES artwork_indexer.audit_entity (id) ON DELETE CASCADE,
    -- unreadable, unfinished, incomparable or failed
    kind            TEXT NOT NULL,
    audits          INTEGER NOT NULL,
    since           TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (audit_entity_id, kind)
);

-- Findings that a narrower policy has skipped: the entity is clean under that policy only.
CREATE TABLE artwork_indexer.audit_passed (
    audit_entity_id BIGINT NOT NULL
                    REFERENCES artwork_indexer.audit_entity (id) ON DELETE CASCADE,
    check_name      TEXT NOT NULL,
    -- 1 minor, 2 major, 3 critical
    severity        SMALLINT NOT NULL,
    -- Only --no-deletions prevented it.
    is_deletion     BOOLEAN NOT NULL,
    PRIMARY KEY (audit_entity_id, check_name, severity, is_deletion)
);

CREATE INDEX audit_passed_idx_check
    ON artwork_indexer.audit_passed (check_name, severity, audit_entity_id);

-- How often the completed repair of a check was found to hold.
CREATE TABLE artwork_indexer.repair_tally (
    check_name          TEXT PRIMARY KEY,
    held                BIGINT NOT NULL DEFAULT 0,
    not_held            BIGINT NOT NULL DEFAULT 0,
    not_held_in_a_row   BIGINT NOT NULL DEFAULT 0,
    last_at             TIMESTAMPTZ NOT NULL DEFAULT now()
);

-- As before. In addition, a completed event of a clean or legacy entity means that the item has
-- changed since its audit, unless it is the index event of an existing entity.
CREATE OR REPLACE FUNCTION artwork_indexer.audit_feedback() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
AS $$
DECLARE
    event_gid  TEXT;
    reason     TEXT;
BEGIN
    -- A copy_image event concerns two entities: the one it copies from and the one it copies to.
    -- Text that is not a gid names no entity.
    FOR event_gid IN
        SELECT DISTINCT lower(named.gid)
        FROM unnest(ARRAY[NEW.message->>'gid', NEW.message->>'old_gid', NEW.message->>'new_gid'])
             AS named (gid)
        WHERE named.gid ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
        ORDER BY 1
    LOOP
        INSERT INTO artwork_indexer.audit_entity (entity_type, gid, priority)
        SELECT NEW.entity_type, event_gid::uuid, 10
        WHERE NOT EXISTS (
            SELECT
            FROM artwork_indexer.audit_entity known
            WHERE known.entity_type = NEW.entity_type AND known.gid = event_gid::uuid)
        ON CONFLICT (entity_type, gid) DO NOTHING;

        IF NEW.state = 'completed' THEN
            -- artwork-indexer removes index.json only of merged or deleted entities.
            UPDATE artwork_indexer.audit_entity entity
            SET status = 'unchecked',
                priority = CASE WHEN NEW.action = 'deindex' THEN greatest(entity.priority, 150)
                                ELSE entity.priority END
            WHERE entity.entity_type = NEW.entity_type
            AND entity.gid = event_gid::uuid
            AND (entity.status = 'legacy'
                 OR (entity.status = 'clean' AND NEW.action <> 'index'));

            -- The next audit shows whether the repair holds, once no more events are in progress.
            -- The row is locked before the queue is read. Otherwise two indexers that finish the
            -- last two events at the same time would each see the other's event as still in
            -- progress.
            PERFORM
            FROM artwork_indexer.audit_entity entity
            WHERE entity.entity_type = NEW.entity_type
            AND entity.gid = event_gid::uuid
            AND entity.status IN ('repair_queue', 'manual_review')
            FOR UPDATE;

            IF FOUND AND NOT EXISTS (
                SELECT
                FROM artwork_indexer.event_queue event
                WHERE event.state IN ('queued', 'running')
                AND event.entity_type = NEW.entity_type
                AND event_gid IN (lower(event.message->>'gid'),
                                  lower(event.message->>'old_gid'),
                                  lower(event.message->>'new_gid'))
            ) THEN
                UPDATE artwork_indexer.audit_entity entity
                SET status = 'unchecked'
                WHERE entity.entity_type = NEW.entity_type AND entity.gid = event_gid::uuid;
            END IF;
        ELSIF NOT EXISTS (
            -- Queued again while this one ran: then the new event decides.
            SELECT
            FROM artwork_indexer.event_queue event
            WHERE event.state = 'queued'
            AND event.entity_type = NEW.entity_type
            AND event.action = NEW.action
            AND event.message = NEW.message
        ) THEN
            reason := format('event %s has failed: %s %s', NEW.id, NEW.action, NEW.message);

            WITH reviewed AS (
                UPDATE artwork_indexer.audit_entity entity
                SET status = 'manual_review'
                WHERE entity.entity_type = NEW.entity_type AND entity.gid = event_gid::uuid
                RETURNING entity.id
            )
            INSERT INTO artwork_indexer.needs_manual_review AS review
                (audit_entity_id, review_reason, reasons)
            SELECT reviewed.id, reason,
                   jsonb_build_array(jsonb_build_object(
                       'code', 'event_failed', 'check', NULL, 'subject', NEW.id::text))
            FROM reviewed
            ON CONFLICT (audit_entity_id) WHERE status = 'open'
            DO UPDATE SET review_reason = review.review_reason || '; ' || excluded.review_reason,
                          reasons = review.reasons || excluded.reasons
            WHERE position(excluded.review_reason IN review.review_reason) = 0;
        END IF;
    END LOOP;
    RETURN NULL;
EXCEPTION
    -- OTHERS does not include it: artwork-indexer's own statement time-out during a wait here.
    WHEN query_canceled OR OTHERS THEN
        RAISE WARNING 'the audit did not hear of event %: %', NEW.id, SQLERRM;
        RETURN NULL;
END;
$$;

-- What artwork-indexer has done to an entity, told to the audit.
--
-- The queue is not ours: the trigger reads the row that changed and writes to our tables alone. It
-- may never make artwork-indexer's statement fail nor hold it up for long: it waits two seconds
-- for a lock, and any error becomes a warning. What is lost that way, audit-batch makes up for.
--
-- It works whichever role artwork-indexer connects as, since it runs with the rights of the role
-- that applied this migration; hence the fixed search_path.

CREATE FUNCTION artwork_indexer.audit_feedback() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
AS $$
DECLARE
    event_gid  TEXT;
    reason     TEXT;
BEGIN
    -- A copy_image event is about two entities: the one it copies from and the one it copies to.
    -- What is no gid names no entity.
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
            -- Its next audit shows whether the repair holds, once nothing more is under way. The
            -- row is locked before the queue is looked at, or two indexers that finish the last
            -- two events at once would each take the other's for being under way.
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
            -- Queued once more while this one ran: then that one decides.
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
                (audit_entity_id, review_reason)
            SELECT reviewed.id, reason FROM reviewed
            ON CONFLICT (audit_entity_id) WHERE status = 'open'
            DO UPDATE SET review_reason = review.review_reason || '; ' || excluded.review_reason
            WHERE position(excluded.review_reason IN review.review_reason) = 0;
        END IF;
    END LOOP;
    RETURN NULL;
EXCEPTION
    -- OTHERS does not include it: a statement time-out of artwork-indexer's own while it waits here.
    WHEN query_canceled OR OTHERS THEN
        RAISE WARNING 'the audit did not hear of event %: %', NEW.id, SQLERRM;
        RETURN NULL;
END;
$$;

CREATE TRIGGER audit_feedback
    AFTER UPDATE OF state ON artwork_indexer.event_queue
    FOR EACH ROW
    WHEN (NEW.state IN ('completed', 'failed')
          AND OLD.state IS DISTINCT FROM NEW.state
          AND NEW.action <> 'noop')
    EXECUTE FUNCTION artwork_indexer.audit_feedback();

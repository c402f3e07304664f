-- Working beside MusicBrainz: an event of ours never blocks an edit, and a deletion never waits in
-- the queue until it may be wrong.
--
-- Three parts work together. Triggers on the queue withdraw our events when MusicBrainz needs the
-- entity, and when a deletion has failed once. A handshake by advisory locks shows what a
-- transaction of MusicBrainz has queued and not yet committed. And one function queues the events
-- of an entity in one statement, so that no lock of ours outlives a network round trip.
--
-- The triggers run in other programs' transactions. They run with the rights of the role that
-- applied this migration, whichever role fires them, and everything in them that can fail is inside
-- a guard that turns an error into a warning. The guard does not catch a cancelled statement: a
-- time-out or a cancel request of the other program works as usual.

ALTER TABLE artwork_indexer.audit_entity
    -- Not claimed before this time: its events were withdrawn.
    ADD COLUMN not_before TIMESTAMPTZ NULL,
    -- How many times in a row its events were withdrawn.
    ADD COLUMN withdrawals SMALLINT NOT NULL DEFAULT 0;

-- Our events that are not completed. An event is ours if its id, action and message agree, because
-- ids are reused after a TRUNCATE ... RESTART IDENTITY. No foreign key to the queue:
-- artwork-indexer and MusicBrainz delete events freely, and must not wait for us.
CREATE TABLE artwork_indexer.audit_event (
    event_id    BIGINT PRIMARY KEY,
    entity_type artwork_indexer.indexable_entity_type NOT NULL,
    gid         UUID NOT NULL,
    action      artwork_indexer.event_queue_action NOT NULL,
    message     JSONB NOT NULL,
    -- For a deletion: the image, and the entity whose copy of it makes the deletion safe.
    artwork_id  BIGINT NULL,
    owner_gid   UUID NULL,
    FOREIGN KEY (entity_type, gid)
        REFERENCES artwork_indexer.audit_entity (entity_type, gid) ON DELETE CASCADE
);

CREATE INDEX audit_event_idx_entity ON artwork_indexer.audit_event (entity_type, gid);
CREATE INDEX audit_event_idx_owner ON artwork_indexer.audit_event (entity_type, owner_gid)
    WHERE owner_gid IS NOT NULL;

-- Events that earlier versions have queued.
INSERT INTO artwork_indexer.audit_event
    (event_id, entity_type, gid, action, message, artwork_id)
SELECT event.id, event.entity_type, entity.gid, event.action, event.message,
       CASE event.action WHEN 'delete_image' THEN (event.message->>'artwork_id')::bigint END
FROM artwork_indexer.event_queue event
JOIN artwork_indexer.audit_result result ON event.id = ANY (result.event_ids)
JOIN artwork_indexer.audit_entity entity
  ON entity.id = result.audit_entity_id AND entity.entity_type = event.entity_type
WHERE event.state IN ('queued', 'running', 'failed')
AND event.message->>'gid' = entity.gid::text
ON CONFLICT (event_id) DO NOTHING;


-- -- withdrawal -----------------------------------------------------------------------------------

-- Every entity belongs to one of 256 buckets, so a transaction of MusicBrainz takes at most that
-- many locks, however many entities it changes.
CREATE FUNCTION artwork_indexer.audit_bucket(gid UUID) RETURNS INT
LANGUAGE sql IMMUTABLE
AS $$
    SELECT pg_catalog.get_byte(pg_catalog.uuid_send(gid), 15)
$$;

-- Remove our queued events of these entities from the queue; return how many. `audit_sweep` handles
-- the entities' own rows, because this function also runs in transactions of MusicBrainz.
--
-- artwork-indexer locks an event that it is taking up for a quarter of a second. The function waits
-- for that only if the event is identical to the given one: otherwise an INSERT of the identical
-- event would meet it in the unique index.
CREATE FUNCTION artwork_indexer.audit_withdraw_events(
    of_type         artwork_indexer.indexable_entity_type,
    of_gids         UUID[],
    twin_action     artwork_indexer.event_queue_action DEFAULT NULL,
    twin_message    JSONB DEFAULT NULL
) RETURNS INT
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ours        RECORD;
    deleted     INT;
    withdrawn   INT := 0;
BEGIN
    FOR ours IN
        SELECT known.event_id, known.action, known.message
        FROM artwork_indexer.audit_event known
        WHERE known.entity_type = of_type AND known.gid = ANY (of_gids)
        -- Dependent events come last and are deleted first.
        ORDER BY known.event_id DESC
    LOOP
        IF ours.action = twin_action AND ours.message = twin_message THEN
            DELETE FROM artwork_indexer.event_queue event
            WHERE event.id = ours.event_id
            AND event.state = 'queued'
            AND event.action = ours.action
            AND event.message = ours.message;
        ELSE
            DELETE FROM artwork_indexer.event_queue event
            WHERE event.id = (
                SELECT free.id
                FROM artwork_indexer.event_queue free
                WHERE free.id = ours.event_id
                AND free.state = 'queued'
                AND free.action = ours.action
                AND free.message = ours.message
                FOR UPDATE SKIP LOCKED);
        END IF;
        GET DIAGNOSTICS deleted = ROW_COUNT;
        withdrawn := withdrawn + deleted;
    END LOOP;
    RETURN withdrawn;
END;
$$;

-- Another program queues an event: withdraw all our queued events of the entities that it names. A
-- deletion relies on another entity's copy, so an event that may change that copy withdraws it,
-- too.
--
-- The lock time-out limits the wait for a row that artwork-indexer is taking up (a quarter of a
-- second), and for a statement of ours that is queueing (some milliseconds). The plan must not
-- depend on when the tables were last analysed, hence no sequential scans.
CREATE FUNCTION artwork_indexer.audit_withdraw() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
SET enable_seqscan = off
AS $$
DECLARE
    named       UUID[];
    dependent   UUID[];
BEGIN
    BEGIN
        -- Text that is not a gid names no entity.
        SELECT array_agg(DISTINCT field.gid::uuid) INTO named
        FROM unnest(ARRAY[NEW.message->>'gid', NEW.message->>'old_gid', NEW.message->>'new_gid'])
             AS field (gid)
        WHERE field.gid ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$';

        IF named IS NULL THEN
            RETURN NEW;
        END IF;

        -- Not for an index event: the unique index on queued events detects one that is not yet
        -- committed, and an edit of thousands of entities takes no lock.
        IF NEW.action IN ('copy_image', 'delete_image', 'deindex') THEN
            PERFORM pg_advisory_xact_lock_shared(
                1635087471, artwork_indexer.audit_bucket(entity.gid))
            FROM unnest(named) AS entity (gid);

            SELECT array_agg(relying.gid) INTO dependent
            FROM artwork_indexer.audit_event relying
            WHERE relying.entity_type = NEW.entity_type AND relying.owner_gid = ANY (named);
        END IF;

        PERFORM FROM artwork_indexer.audit_event known
        WHERE known.entity_type = NEW.entity_type AND known.gid = ANY (named || dependent)
        LIMIT 1;

        IF FOUND THEN
            PERFORM artwork_indexer.audit_withdraw_events(
                NEW.entity_type, named || dependent, NEW.action, NEW.message);
        END IF;
    EXCEPTION
        WHEN OTHERS THEN
            RAISE WARNING 'the audit did not withdraw its events for %: %', NEW.message, SQLERRM;
    END;
    RETURN NEW;
END;
$$;

-- Our own inserts are marked while the function below executes them.
CREATE TRIGGER audit_withdraw
    BEFORE INSERT ON artwork_indexer.event_queue
    FOR EACH ROW
    WHEN (NEW.action <> 'noop'
          AND current_setting('artwork_backfill.queueing', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION artwork_indexer.audit_withdraw();

-- Likewise if another program queues a failed event again.
CREATE TRIGGER audit_withdraw_again
    BEFORE UPDATE OF state ON artwork_indexer.event_queue
    FOR EACH ROW
    WHEN (OLD.state = 'failed' AND NEW.state = 'queued' AND NEW.action <> 'noop'
          AND current_setting('artwork_backfill.queueing', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION artwork_indexer.audit_withdraw();

-- A deletion of ours has failed: artwork-indexer would try again an hour later, when it may be
-- wrong.
--
-- Deferred, because artwork-indexer writes the reason of the failure after it has put the event
-- back, in the same transaction, and the reason refers to the event.
CREATE FUNCTION artwork_indexer.audit_withdraw_failed() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
SET enable_seqscan = off
AS $$
DECLARE
    failed_gid UUID;
BEGIN
    BEGIN
        SELECT known.gid INTO failed_gid
        FROM artwork_indexer.audit_event known
        WHERE known.event_id = NEW.id
        AND known.action = NEW.action
        AND known.message = NEW.message;

        IF FOUND THEN
            PERFORM artwork_indexer.audit_withdraw_events(NEW.entity_type, ARRAY[failed_gid]);
        END IF;
    EXCEPTION
        WHEN OTHERS THEN
            RAISE WARNING 'the audit did not withdraw its events for %: %', NEW.message, SQLERRM;
    END;
    RETURN NULL;
END;
$$;

CREATE CONSTRAINT TRIGGER audit_withdraw_failed
    AFTER UPDATE OF state ON artwork_indexer.event_queue
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW
    WHEN (OLD.state = 'running' AND NEW.state = 'queued' AND NEW.action = 'delete_image')
    EXECUTE FUNCTION artwork_indexer.audit_withdraw_failed();


-- -- sweeping -------------------------------------------------------------------------------------

-- Withdraw deletions that wait and events that can never run, and make the entities of withdrawn
-- events unchecked.
--
-- Called by every run and by every call of an Auditor. A deletion waits if it has not begun
-- `patience` after it was queued, or has failed once. An event can never run if one that it depends
-- on has failed: artwork-indexer fails both, except if it gives up an event because it took too
-- long, or because the indexer that ran it was killed. An entity whose events are gone and were not
-- completed is not claimed for 2^k times `unit` after the k-th time in a row, six hours at most;
-- the fifth time it becomes a review.
CREATE FUNCTION artwork_indexer.audit_sweep(
    patience        INTERVAL DEFAULT '10 minutes',
    unit            INTERVAL DEFAULT '1 minute',
    OUT withdrawn   INT,
    OUT deferred    INT,
    OUT reviewed    INT
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '200ms'
AS $$
DECLARE
    waiting     RECORD;
    ended       RECORD;
    entity      RECORD;
    its         RECORD;
    most        CONSTANT SMALLINT := 5;
    -- Limited, so that a sweep is short however much there is to do.
    at_once     CONSTANT INT := 500;
BEGIN
    withdrawn := 0;
    deferred := 0;
    reviewed := 0;

    FOR waiting IN
        SELECT DISTINCT known.entity_type, known.gid
        FROM artwork_indexer.audit_event known
        JOIN artwork_indexer.event_queue event
          ON event.id = known.event_id
         AND event.action = known.action
         AND event.message = known.message
        WHERE event.state = 'queued'
        AND (known.action = 'delete_image'
             AND (event.attempts > 0 OR event.created < now() - patience)
             OR EXISTS (
                 SELECT
                 FROM artwork_indexer.event_queue parent
                 WHERE parent.id = ANY (event.depends_on) AND parent.state = 'failed'))
        LIMIT at_once
    LOOP
        withdrawn := withdrawn + artwork_indexer.audit_withdraw_events(
            waiting.entity_type, ARRAY[waiting.gid]);
    END LOOP;

    FOR ended IN
        SELECT known.entity_type, known.gid
        FROM artwork_indexer.audit_event known
        LEFT JOIN artwork_indexer.event_queue event
               ON event.id = known.event_id
              AND event.action = known.action
              AND event.message = known.message
        JOIN artwork_indexer.audit_entity audited
          ON audited.entity_type = known.entity_type AND audited.gid = known.gid
        GROUP BY known.entity_type, known.gid
        HAVING NOT bool_or(coalesce(event.state IN ('queued', 'running'), false))
        AND bool_or(coalesce(event.state <> 'failed', true) OR audited.status = 'repair_queue')
        ORDER BY known.entity_type, known.gid
        LIMIT at_once
    LOOP
        -- Skip rows that another run is writing; a run decides itself about what it audits.
        SELECT audited.id, audited.status::text AS status, audited.withdrawals INTO entity
        FROM artwork_indexer.audit_entity audited
        WHERE audited.entity_type = ended.entity_type
        AND audited.gid = ended.gid
        AND audited.status <> 'audit_in_progress'
        FOR UPDATE SKIP LOCKED;

        CONTINUE WHEN NOT FOUND;

        -- Only now, with the entity locked, because two runs may sweep at the same time.
        SELECT bool_or(event.id IS NULL) AS withdrawn,
               bool_or(coalesce(event.state = 'completed', false)) AS completed,
               bool_or(coalesce(event.state IN ('queued', 'running'), false)) AS under_way
        INTO its
        FROM artwork_indexer.audit_event known
        LEFT JOIN artwork_indexer.event_queue event
               ON event.id = known.event_id
              AND event.action = known.action
              AND event.message = known.message
        WHERE known.entity_type = ended.entity_type AND known.gid = ended.gid;

        CONTINUE WHEN its.under_way OR its.under_way IS NULL;

        IF its.completed THEN
            entity.withdrawals := 0;
        END IF;

        IF its.withdrawn AND entity.status IN ('repair_queue', 'unchecked') THEN
            IF entity.withdrawals + 1 >= most THEN
                reviewed := reviewed + 1;
                UPDATE artwork_indexer.audit_entity audited
                SET status = 'manual_review', withdrawals = 0, not_before = NULL
                WHERE audited.id = entity.id;

                INSERT INTO artwork_indexer.needs_manual_review AS review
                    (audit_entity_id, review_reason, reasons)
                VALUES (entity.id, format(
                    'its events were withdrawn %s times in a row: a deletion failed or did not begin,'
                    ' or MusicBrainz changed the entity', most),
                    '[{"code": "withdrawn", "check": null, "subject": ""}]')
                ON CONFLICT (audit_entity_id) WHERE status = 'open'
                DO UPDATE SET review_reason = review.review_reason || '; ' || excluded.review_reason,
                              reasons = review.reasons || excluded.reasons
                WHERE position(excluded.review_reason IN review.review_reason) = 0;
            ELSE
                deferred := deferred + 1;
                UPDATE artwork_indexer.audit_entity audited
                SET status = 'unchecked',
                    withdrawals = entity.withdrawals + 1,
                    not_before = now() + least(interval '6 hours',
                                               unit * 2 ^ (entity.withdrawals + 1))
                WHERE audited.id = entity.id;
            END IF;
        ELSIF its.completed OR entity.status = 'repair_queue' THEN
            -- Still in repair: the feedback trigger gave up rather than delay artwork-indexer.
            UPDATE artwork_indexer.audit_entity audited
            SET status = CASE audited.status
                             WHEN 'repair_queue' THEN 'unchecked' ELSE audited.status
                         END,
                withdrawals = entity.withdrawals,
                not_before = NULL
            WHERE audited.id = entity.id;
        END IF;

        -- A failed event may be queued again, and is then still ours.
        DELETE FROM artwork_indexer.audit_event known
        WHERE known.entity_type = ended.entity_type
        AND known.gid = ended.gid
        AND NOT EXISTS (
            SELECT
            FROM artwork_indexer.event_queue event
            WHERE event.id = known.event_id
            AND event.action = known.action
            AND event.message = known.message
            AND event.state = 'failed');
    END LOOP;
END;
$$;


-- -- queueing -------------------------------------------------------------------------------------

-- Return why the events of an entity may not be queued now, or NULL if they may; see `audit_queue`.
CREATE FUNCTION artwork_indexer.audit_obstacle(
    of_type     artwork_indexer.indexable_entity_type,
    of_gid      UUID,
    claimed_at  TIMESTAMPTZ,
    is_live     BOOLEAN,
    events      JSONB,
    owners      UUID[],
    max_depth   INT
) RETURNS TEXT
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    deletions   CONSTANT JSONB := jsonb_path_query_array(
        events, '$[*] ? (@.action == "delete_image")');
    again       CONSTANT BIGINT[] := ARRAY(
        SELECT (event->>'event_id')::bigint
        FROM jsonb_array_elements(events) AS event
        WHERE event->>'event_id' IS NOT NULL);
    under_way   RECORD;
    now_live    BOOLEAN;
    has_moved   BOOLEAN;
BEGIN
    SELECT count(*) AS events,
           coalesce(bool_or(event.entity_type = of_type AND named.gids && ARRAY[of_gid::text]),
                    false) AS of_entity,
           coalesce(bool_or(event.entity_type = of_type
                            AND event.action IN ('copy_image', 'delete_image', 'deindex')
                            AND named.gids && owners::text[]), false) AS of_owners
    INTO under_way
    FROM artwork_indexer.event_queue event
    CROSS JOIN LATERAL (
        SELECT ARRAY[lower(event.message->>'gid'), lower(event.message->>'old_gid'),
                     lower(event.message->>'new_gid')] AS gids
    ) AS named
    WHERE event.state IN ('queued', 'running')
    -- Events that wait for one of these failed events are no obstacle.
    AND NOT (event.state = 'queued' AND coalesce(event.depends_on && again, false));

    IF under_way.of_entity THEN
        RETURN 'event_queued';
    END IF;

    -- An event that has ended since the claim was created after it; otherwise the claim would have
    -- found it queued. `created` is the start of the transaction that queued it, hence the margin.
    IF claimed_at IS NOT NULL AND EXISTS (
        SELECT
        FROM artwork_indexer.event_queue event
        WHERE event.state IN ('completed', 'failed')
        AND event.created >= claimed_at - interval '15 minutes'
        AND event.last_updated >= claimed_at
        AND event.entity_type = of_type
        AND of_gid::text IN (lower(event.message->>'gid'), lower(event.message->>'old_gid'),
                             lower(event.message->>'new_gid'))
    ) THEN
        RETURN 'event_since';
    END IF;

    -- Two deletions that rely on each other's entity would leave no copy.
    IF under_way.of_owners OR jsonb_array_length(deletions) > 0 AND EXISTS (
        SELECT
        FROM artwork_indexer.audit_event relying
        JOIN artwork_indexer.event_queue event
          ON event.id = relying.event_id
         AND event.action = relying.action
         AND event.message = relying.message
        WHERE relying.entity_type = of_type
        AND relying.owner_gid = of_gid
        AND event.state IN ('queued', 'running')
    ) THEN
        RETURN 'owner_busy';
    END IF;

    IF of_type = 'release' THEN
        now_live := EXISTS (
            SELECT FROM musicbrainz.release WHERE release.gid = of_gid);
        has_moved := EXISTS (
            SELECT
            FROM jsonb_array_elements(deletions) AS deletion
            LEFT JOIN cover_art_archive.cover_art art
                   ON art.id = (deletion->'message'->>'artwork_id')::bigint
            LEFT JOIN musicbrainz.release ON release.id = art.release
            WHERE release.gid = of_gid
            OR deletion->>'owner_gid' IS NOT NULL
            AND release.gid IS DISTINCT FROM (deletion->>'owner_gid')::uuid);
    ELSE
        now_live := EXISTS (
            SELECT FROM musicbrainz.event WHERE event.gid = of_gid);
        has_moved := EXISTS (
            SELECT
            FROM jsonb_array_elements(deletions) AS deletion
            LEFT JOIN event_art_archive.event_art art
                   ON art.id = (deletion->'message'->>'artwork_id')::bigint
            LEFT JOIN musicbrainz.event ON event.id = art.event
            WHERE event.gid = of_gid
            OR deletion->>'owner_gid' IS NOT NULL
            AND event.gid IS DISTINCT FROM (deletion->>'owner_gid')::uuid);
    END IF;

    IF is_live IS NOT NULL AND now_live <> is_live THEN
        RETURN 'entity_changed';
    ELSIF has_moved THEN
        RETURN 'owner_changed';
    END IF;

    IF max_depth > 0
        AND under_way.events > 0
        AND under_way.events + jsonb_array_length(events) > max_depth
    THEN
        -- A repair with more events than the limit gets an empty queue for itself.
        RETURN 'no_room';
    END IF;
    RETURN NULL;
END;
$$;

-- Queue the events of one entity, or return why not without changing anything.
--
-- Call it in a transaction of its own in READ COMMITTED, with a statement_timeout of a second, and
-- in the same message as its BEGIN and COMMIT: while it runs, edits of the entity wait for it.
--
-- `claimed_at` is the token of the claim, NULL for a person's decision. `events` is an array of
-- objects with `action` and `message`; `depends_on`, an array of positions in `events` (from 0);
-- for a deletion also `owner_gid`, unless the owner is unknown; for a failed event to queue again
-- its `event_id`. `result` and `findings` are stored in audit_result, unless they are NULL. `note`
-- is added to the open review, if there is one; {events} in it becomes the ids of the events.
-- `max_depth` is the maximum length of the queue, 0 for no limit.
--
-- Outcomes: `queued`; `lost`, the claim is not held any more; `no_room`; `being_audited`; `busy`,
-- an uncommitted transaction is changing the entity or an owner; `event_queued`, another event of
-- the entity is queued or running; `event_since`, one has ended since the claim; `entity_changed`,
-- it was merged, deleted or restored; `owner_changed`, an image belongs to another entity now;
-- `owner_busy`, an event may change an owner's copy, or another deletion relies on this entity's;
-- `event_changed`, an event to queue again is not failed any more.
CREATE FUNCTION artwork_indexer.audit_queue(
    entity_id       BIGINT,
    claimed_at      TIMESTAMPTZ,
    run             UUID,
    is_live         BOOLEAN,
    events          JSONB,
    result          TEXT,
    findings        JSONB,
    note            TEXT,
    max_depth       INT,
    OUT outcome     TEXT,
    OUT event_ids   BIGINT[]
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '200ms'
AS $$
#variable_conflict use_column
DECLARE
    entity      RECORD;
    wanted      RECORD;
    owners      UUID[];
    parents     BIGINT[];
    new_id      BIGINT;
BEGIN
    event_ids := '{}';

    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'audit_queue looks again at what others have committed meanwhile, and works'
            ' in READ COMMITTED only';
    END IF;

    -- Otherwise runs that queue at the same time would each see the same room.
    IF max_depth > 0 THEN
        PERFORM pg_advisory_xact_lock(487300887909);
    END IF;

    SELECT audited.entity_type, audited.gid, audited.status::text AS status,
           audited.last_audit_at INTO entity
    FROM artwork_indexer.audit_entity audited
    WHERE audited.id = entity_id
    FOR UPDATE;

    IF claimed_at IS NULL AND entity.status IS NULL THEN
        outcome := 'lost';
        RETURN;
    ELSIF claimed_at IS NULL AND entity.status = 'audit_in_progress' THEN
        outcome := 'being_audited';
        RETURN;
    ELSIF claimed_at IS NOT NULL
        AND (entity.status IS DISTINCT FROM 'audit_in_progress'
             OR entity.last_audit_at IS DISTINCT FROM claimed_at)
    THEN
        -- Called again because the commit got no answer?
        SELECT written.event_ids INTO event_ids
        FROM artwork_indexer.audit_result written
        WHERE written.audit_entity_id = entity_id
        AND written.run_id = run
        AND written.audited_at = entity.last_audit_at
        AND written.audited_at > claimed_at;
        outcome := CASE WHEN FOUND THEN 'queued' ELSE 'lost' END;
        event_ids := coalesce(event_ids, '{}');
        RETURN;
    END IF;

    SELECT coalesce(array_agg(DISTINCT (event->>'owner_gid')::uuid)
                    FILTER (WHERE event->>'owner_gid' IS NOT NULL), '{}')
    INTO owners
    FROM jsonb_array_elements(events) AS event;

    -- From here on, an edit that may change an image of one of these entities waits for us. If it
    -- has started before, we do not wait for it.
    FOR wanted IN
        SELECT DISTINCT artwork_indexer.audit_bucket(named.gid) AS bucket
        FROM unnest(owners || entity.gid) AS named (gid)
    LOOP
        IF NOT pg_try_advisory_xact_lock(1635087471, wanted.bucket) THEN
            outcome := 'busy';
            RETURN;
        END IF;
    END LOOP;

    outcome := artwork_indexer.audit_obstacle(
        entity.entity_type, entity.gid, claimed_at, is_live, events, owners, max_depth);
    IF outcome IS NOT NULL THEN
        RETURN;
    END IF;

    -- For this transaction, and turned off below; a SET clause would need a superuser here. After a
    -- session has had the setting once, it reads as the empty string.
    PERFORM set_config('artwork_backfill.queueing', 'on', true);
    BEGIN
        FOR wanted IN
            SELECT event, event->>'action' AS action, event->'message' AS message
            FROM jsonb_array_elements(events) WITH ORDINALITY AS listed (event, position)
            ORDER BY position
        LOOP
            SELECT array_agg(event_ids[1 + parent::int]) INTO parents
            FROM jsonb_array_elements_text(wanted.event->'depends_on') AS parent;

            IF wanted.event->>'event_id' IS NULL THEN
                INSERT INTO artwork_indexer.event_queue (entity_type, action, message, depends_on)
                VALUES (entity.entity_type, wanted.action::artwork_indexer.event_queue_action,
                        wanted.message, parents)
                RETURNING id INTO new_id;
            ELSE
                -- As if it were new: after all waiting events, and with its full time to run.
                UPDATE artwork_indexer.event_queue queued
                SET state = 'queued', attempts = 0, created = now()
                WHERE queued.id = (wanted.event->>'event_id')::bigint
                AND queued.state = 'failed'
                RETURNING queued.id INTO new_id;
                IF NOT FOUND THEN
                    RAISE no_data_found;
                END IF;
            END IF;
            event_ids := event_ids || new_id;
        END LOOP;

        -- Events that waited for one of these begin again with it. An event that also depends on
        -- another failed one can never run; `audit_sweep` would withdraw these along with it.
        FOR wanted IN
            SELECT waiting.id,
                   EXISTS (
                       SELECT
                       FROM artwork_indexer.event_queue parent
                       WHERE parent.id = ANY (waiting.depends_on)
                       AND parent.state = 'failed') AS is_stuck
            FROM artwork_indexer.event_queue waiting
            JOIN artwork_indexer.audit_event known
              ON known.event_id = waiting.id
             AND known.action = waiting.action
             AND known.message = waiting.message
            WHERE waiting.state = 'queued'
            AND waiting.depends_on && event_ids
            AND NOT waiting.id = ANY (event_ids)
        LOOP
            IF wanted.is_stuck THEN
                DELETE FROM artwork_indexer.event_queue waiting WHERE waiting.id = wanted.id;
            ELSE
                UPDATE artwork_indexer.event_queue waiting
                SET created = now()
                WHERE waiting.id = wanted.id;
            END IF;
        END LOOP;
    EXCEPTION
        -- Another transaction has queued an identical event in the meantime, committed or not.
        WHEN unique_violation THEN
            outcome := 'event_queued';
        WHEN lock_not_available THEN
            outcome := 'busy';
        WHEN no_data_found THEN
            outcome := 'event_changed';
    END;
    PERFORM set_config('artwork_backfill.queueing', 'off', true);
    IF outcome IS NOT NULL THEN
        event_ids := '{}';
        RETURN;
    END IF;

    DELETE FROM artwork_indexer.audit_event known
    WHERE known.entity_type = entity.entity_type
    AND known.gid = entity.gid
    AND NOT EXISTS (
        SELECT
        FROM artwork_indexer.event_queue event
        WHERE event.id = known.event_id AND event.state IN ('queued', 'failed'));

    INSERT INTO artwork_indexer.audit_event AS known
        (event_id, entity_type, gid, action, message, artwork_id, owner_gid)
    SELECT event_ids[listed.position], entity.entity_type, entity.gid,
           (listed.event->>'action')::artwork_indexer.event_queue_action,
           listed.event->'message',
           CASE listed.event->>'action'
               WHEN 'delete_image' THEN (listed.event->'message'->>'artwork_id')::bigint
           END,
           (listed.event->>'owner_gid')::uuid
    FROM jsonb_array_elements(events) WITH ORDINALITY AS listed (event, position)
    ON CONFLICT (event_id) DO UPDATE
    SET entity_type = excluded.entity_type, gid = excluded.gid, action = excluded.action,
        message = excluded.message, artwork_id = excluded.artwork_id,
        owner_gid = excluded.owner_gid;

    UPDATE artwork_indexer.audit_entity audited
    SET status = 'repair_queue',
        last_audit_at = CASE WHEN claimed_at IS NULL THEN audited.last_audit_at ELSE now() END,
        claimed_by = NULL,
        not_before = NULL,
        was_live = coalesce(is_live, audited.was_live)
    WHERE audited.id = entity_id;

    IF result IS NOT NULL THEN
        INSERT INTO artwork_indexer.audit_result
            (audit_entity_id, run_id, outcome, findings, event_ids)
        VALUES (entity_id, run, result, findings, event_ids);
    END IF;

    IF note IS NOT NULL THEN
        UPDATE artwork_indexer.needs_manual_review review
        SET resolution_notes = concat_ws(
            E'\n', review.resolution_notes,
            replace(note, '{events}', array_to_string(event_ids, ', ')))
        WHERE review.audit_entity_id = entity_id AND review.status = 'open';
    END IF;
    outcome := 'queued';
END;
$$;

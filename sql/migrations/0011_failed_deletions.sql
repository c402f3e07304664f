-- A deletion of ours that has failed is not queued again without a new look at archive.org.
--
-- artwork-indexer has people requeue failed events by an UPDATE. What made a deletion safe may be
-- long gone by then, and it would run before all newer events: the owner's copy may be the one that
-- is missing now. `artwork-backfill events requeue` reads both items again.
CREATE FUNCTION artwork_indexer.audit_keep_failed() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM artwork_indexer.audit_event known
    WHERE known.event_id = NEW.id AND known.action = NEW.action AND known.message = NEW.message;

    IF FOUND THEN
        RAISE WARNING 'event % stays failed, because it may delete the only copy of an image: use'
            ' `artwork-backfill events requeue %`, which looks first', NEW.id, NEW.id;
        RETURN NULL;
    END IF;
    RETURN NEW;
EXCEPTION
    WHEN OTHERS THEN
        RAISE WARNING 'the audit did not look at event %: %', NEW.id, SQLERRM;
        RETURN NEW;
END;
$$;

CREATE TRIGGER audit_keep_failed
    BEFORE UPDATE OF state ON artwork_indexer.event_queue
    FOR EACH ROW
    WHEN (OLD.state = 'failed' AND NEW.state = 'queued' AND NEW.action = 'delete_image'
          AND current_setting('artwork_backfill.queueing', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION artwork_indexer.audit_keep_failed();

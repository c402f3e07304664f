-- What MusicBrainz's own triggers queue for artwork-indexer when people edit.
--
-- Other programs are affected by the conflict handling. An index event yields to an identical
-- queued one, or makes it wait for the deletion of an image. delete_image and copy_image have no
-- such clause: an identical queued event makes the edit fail. The exception is the deletion of an
-- entity.
--
-- One set of functions serves both archives. A trigger's argument is the entity type, which is also
-- the name of the column that refers to it.

CREATE VIEW artwork_indexer.sandbox_entity AS
SELECT 'release' AS entity_type, id, gid FROM musicbrainz.release
 UNION ALL
SELECT 'event', id, gid FROM musicbrainz.event;

CREATE VIEW artwork_indexer.sandbox_art AS
SELECT 'release' AS entity_type, id, release AS owner, mime_type FROM cover_art_archive.cover_art
 UNION ALL
SELECT 'event', id, event, mime_type FROM event_art_archive.event_art;

CREATE FUNCTION artwork_indexer.sandbox_gid(kind TEXT, entity_id INT) RETURNS UUID
LANGUAGE sql STABLE AS $$
    SELECT gid FROM artwork_indexer.sandbox_entity WHERE entity_type = kind AND id = entity_id
$$;

CREATE FUNCTION artwork_indexer.sandbox_has_art(
    kind TEXT, entity_id INT, besides BIGINT DEFAULT 0
) RETURNS BOOLEAN LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM artwork_indexer.sandbox_art
        WHERE entity_type = kind AND owner = entity_id AND id <> besides)
$$;

-- Without a conflict clause, like MusicBrainz's own events for images.
CREATE FUNCTION artwork_indexer.sandbox_queue_image(
    kind TEXT, action TEXT, message JSONB, parent BIGINT DEFAULT NULL
) RETURNS BIGINT LANGUAGE sql AS $$
    INSERT INTO artwork_indexer.event_queue (entity_type, action, message, depends_on)
    VALUES (kind::artwork_indexer.indexable_entity_type,
            action::artwork_indexer.event_queue_action, message,
            CASE WHEN parent IS NOT NULL THEN ARRAY[parent] END)
    RETURNING id
$$;

CREATE FUNCTION artwork_indexer.sandbox_queue_index(kind TEXT, gid UUID) RETURNS VOID
LANGUAGE sql AS $$
    INSERT INTO artwork_indexer.event_queue (entity_type, action, message)
    VALUES (kind::artwork_indexer.indexable_entity_type, 'index', jsonb_build_object('gid', gid))
    ON CONFLICT DO NOTHING
$$;

-- After the deletion of an image: an already queued index event then waits for the deletion, too.
CREATE FUNCTION artwork_indexer.sandbox_queue_index_after(kind TEXT, gid UUID, parent BIGINT)
RETURNS VOID LANGUAGE sql AS $$
    INSERT INTO artwork_indexer.event_queue AS queued (entity_type, action, message, depends_on)
    VALUES (kind::artwork_indexer.indexable_entity_type, 'index', jsonb_build_object('gid', gid),
            ARRAY[parent])
    ON CONFLICT (entity_type, action, message) WHERE state = 'queued'
    DO UPDATE SET depends_on = coalesce(queued.depends_on, '{}') || excluded.depends_on
$$;

CREATE FUNCTION artwork_indexer.sandbox_queue_deindex(kind TEXT, gid UUID, parent BIGINT)
RETURNS VOID LANGUAGE sql AS $$
    INSERT INTO artwork_indexer.event_queue (entity_type, action, message, depends_on)
    VALUES (kind::artwork_indexer.indexable_entity_type, 'deindex', jsonb_build_object('gid', gid),
            CASE WHEN parent IS NOT NULL THEN ARRAY[parent] END)
    ON CONFLICT DO NOTHING;

    DELETE FROM artwork_indexer.event_queue
    WHERE state = 'queued'
    AND entity_type = kind::artwork_indexer.indexable_entity_type
    AND action = 'index'
    AND message = jsonb_build_object('gid', gid);
$$;

CREATE FUNCTION artwork_indexer.sandbox_art_added() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    kind TEXT := TG_ARGV[0];
BEGIN
    PERFORM artwork_indexer.sandbox_queue_index(
        kind, artwork_indexer.sandbox_gid(kind, (to_jsonb(NEW)->>kind)::int));
    RETURN NULL;
END
$$;

-- A changed owner is a merge or a move: the image is copied, and deleted in its old place.
CREATE FUNCTION artwork_indexer.sandbox_art_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    kind        TEXT := TG_ARGV[0];
    old_owner   INT := (to_jsonb(OLD)->>kind)::int;
    new_owner   INT := (to_jsonb(NEW)->>kind)::int;
    old_gid     UUID := artwork_indexer.sandbox_gid(kind, old_owner);
    new_gid     UUID := artwork_indexer.sandbox_gid(kind, new_owner);
    image       JSONB;
    deletion    BIGINT;
BEGIN
    IF old_owner = new_owner THEN
        PERFORM artwork_indexer.sandbox_queue_index(kind, new_gid);
        RETURN NEW;
    END IF;

    SELECT jsonb_build_object('artwork_id', OLD.id, 'suffix', suffix) INTO STRICT image
    FROM cover_art_archive.image_type WHERE mime_type = OLD.mime_type;

    deletion := artwork_indexer.sandbox_queue_image(
        kind, 'delete_image', image || jsonb_build_object('gid', old_gid),
        artwork_indexer.sandbox_queue_image(
            kind, 'copy_image',
            image || jsonb_build_object('old_gid', old_gid, 'new_gid', new_gid)));

    IF artwork_indexer.sandbox_has_art(kind, old_owner, besides => OLD.id) THEN
        PERFORM artwork_indexer.sandbox_queue_index_after(kind, old_gid, deletion);
        PERFORM artwork_indexer.sandbox_queue_index_after(kind, new_gid, deletion);
    ELSE
        PERFORM artwork_indexer.sandbox_queue_index_after(kind, new_gid, deletion);
        PERFORM artwork_indexer.sandbox_queue_deindex(kind, old_gid, deletion);
    END IF;
    RETURN NEW;
END
$$;

-- Not if the image is deleted with its entity: that is `sandbox_entity_deleted`.
CREATE FUNCTION artwork_indexer.sandbox_art_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    kind    TEXT := TG_ARGV[0];
    its_gid UUID := artwork_indexer.sandbox_gid(kind, (to_jsonb(OLD)->>kind)::int);
    image   JSONB;
BEGIN
    SELECT jsonb_build_object('artwork_id', OLD.id, 'suffix', suffix, 'gid', its_gid) INTO image
    FROM cover_art_archive.image_type WHERE mime_type = OLD.mime_type;

    IF its_gid IS NOT NULL AND image IS NOT NULL THEN
        PERFORM artwork_indexer.sandbox_queue_index_after(
            kind, its_gid, artwork_indexer.sandbox_queue_image(kind, 'delete_image', image));
    END IF;
    RETURN OLD;
END
$$;

CREATE FUNCTION artwork_indexer.sandbox_art_type_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    kind    TEXT := TG_ARGV[0];
    its_gid UUID;
BEGIN
    SELECT artwork_indexer.sandbox_gid(kind, art.owner) INTO its_gid
    FROM artwork_indexer.sandbox_art art
    WHERE art.entity_type = kind AND art.id = coalesce(NEW.id, OLD.id);
    -- Types that are deleted with their image need no event.
    IF its_gid IS NOT NULL THEN
        PERFORM artwork_indexer.sandbox_queue_index(kind, its_gid);
    END IF;
    RETURN coalesce(NEW, OLD);
END
$$;

CREATE FUNCTION artwork_indexer.sandbox_entity_renamed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    kind TEXT := TG_ARGV[0];
BEGIN
    IF artwork_indexer.sandbox_has_art(kind, NEW.id) THEN
        PERFORM artwork_indexer.sandbox_queue_index(kind, NEW.gid);
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION artwork_indexer.sandbox_entity_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    kind TEXT := TG_ARGV[0];
BEGIN
    IF artwork_indexer.sandbox_has_art(kind, OLD.id) THEN
        INSERT INTO artwork_indexer.event_queue (entity_type, action, message)
        SELECT kind::artwork_indexer.indexable_entity_type, 'delete_image', jsonb_build_object(
                   'artwork_id', art.id, 'suffix', image_type.suffix, 'gid', OLD.gid)
        FROM artwork_indexer.sandbox_art art
        JOIN cover_art_archive.image_type USING (mime_type)
        WHERE art.entity_type = kind AND art.owner = OLD.id
        ON CONFLICT DO NOTHING;
        PERFORM artwork_indexer.sandbox_queue_deindex(kind, OLD.gid, NULL);
    END IF;
    RETURN OLD;
END
$$;

DO $$
DECLARE
    kind    TEXT;
    art     TEXT;
    renamed TEXT;
BEGIN
    FOR kind, art, renamed IN VALUES
        ('release', 'cover_art_archive.cover_art',
         'OLD.name <> NEW.name OR OLD.artist_credit <> NEW.artist_credit'),
        ('event', 'event_art_archive.event_art', 'OLD.name <> NEW.name')
    LOOP
        EXECUTE format($triggers$
            CREATE TRIGGER sandbox_art_added AFTER INSERT ON %2$s
                FOR EACH ROW EXECUTE FUNCTION artwork_indexer.sandbox_art_added(%1$s);
            CREATE TRIGGER sandbox_art_changed BEFORE UPDATE ON %2$s
                FOR EACH ROW EXECUTE FUNCTION artwork_indexer.sandbox_art_changed(%1$s);
            CREATE TRIGGER sandbox_art_deleted BEFORE DELETE ON %2$s
                FOR EACH ROW EXECUTE FUNCTION artwork_indexer.sandbox_art_deleted(%1$s);
            CREATE TRIGGER sandbox_type_added AFTER INSERT ON %2$s_type
                FOR EACH ROW EXECUTE FUNCTION artwork_indexer.sandbox_art_type_changed(%1$s);
            CREATE TRIGGER sandbox_type_deleted BEFORE DELETE ON %2$s_type
                FOR EACH ROW EXECUTE FUNCTION artwork_indexer.sandbox_art_type_changed(%1$s);
            CREATE TRIGGER sandbox_renamed AFTER UPDATE ON musicbrainz.%1$s
                FOR EACH ROW WHEN (%3$s)
                EXECUTE FUNCTION artwork_indexer.sandbox_entity_renamed(%1$s);
            CREATE TRIGGER sandbox_deleted BEFORE DELETE ON musicbrainz.%1$s
                FOR EACH ROW EXECUTE FUNCTION artwork_indexer.sandbox_entity_deleted(%1$s);
        $triggers$, kind, art, renamed);
    END LOOP;
END
$$;

-- Keys and indexes, apart from the tables because large loads are faster without them.

ALTER TABLE musicbrainz.release ADD PRIMARY KEY (id);
CREATE UNIQUE INDEX release_idx_gid ON musicbrainz.release (gid);
ALTER TABLE musicbrainz.event ADD PRIMARY KEY (id);
CREATE UNIQUE INDEX event_idx_gid ON musicbrainz.event (gid);

ALTER TABLE musicbrainz.artist ADD PRIMARY KEY (id);
ALTER TABLE musicbrainz.artist_credit_name ADD PRIMARY KEY (artist_credit, position);
ALTER TABLE musicbrainz.language ADD PRIMARY KEY (id);
CREATE INDEX release_country_idx_release ON musicbrainz.release_country (release);
ALTER TABLE musicbrainz.release_unknown_country ADD PRIMARY KEY (release);

ALTER TABLE musicbrainz.release_gid_redirect ADD PRIMARY KEY (gid);
ALTER TABLE musicbrainz.release_gid_redirect
    ADD FOREIGN KEY (new_id) REFERENCES musicbrainz.release (id);
CREATE INDEX release_gid_redirect_idx_new_id ON musicbrainz.release_gid_redirect (new_id);
ALTER TABLE musicbrainz.event_gid_redirect ADD PRIMARY KEY (gid);
ALTER TABLE musicbrainz.event_gid_redirect
    ADD FOREIGN KEY (new_id) REFERENCES musicbrainz.event (id);
CREATE INDEX event_gid_redirect_idx_new_id ON musicbrainz.event_gid_redirect (new_id);
ALTER TABLE musicbrainz.deleted_entity ADD PRIMARY KEY (gid);

ALTER TABLE musicbrainz.release_meta ADD PRIMARY KEY (id);
ALTER TABLE musicbrainz.release_meta
    ADD FOREIGN KEY (id) REFERENCES musicbrainz.release (id) ON DELETE CASCADE;
ALTER TABLE musicbrainz.event_meta ADD PRIMARY KEY (id);
ALTER TABLE musicbrainz.event_meta
    ADD FOREIGN KEY (id) REFERENCES musicbrainz.event (id) ON DELETE CASCADE;

ALTER TABLE musicbrainz.edit ADD PRIMARY KEY (id);
ALTER TABLE musicbrainz.edit_event ADD PRIMARY KEY (edit, event);
CREATE INDEX edit_event_idx ON musicbrainz.edit_event (event);

ALTER TABLE cover_art_archive.image_type ADD PRIMARY KEY (mime_type);

ALTER TABLE cover_art_archive.art_type ADD PRIMARY KEY (id);
ALTER TABLE cover_art_archive.cover_art ADD PRIMARY KEY (id);
ALTER TABLE cover_art_archive.cover_art
    ADD FOREIGN KEY (release) REFERENCES musicbrainz.release (id) ON DELETE CASCADE;
CREATE INDEX cover_art_idx_release ON cover_art_archive.cover_art (release);
ALTER TABLE cover_art_archive.cover_art_type ADD PRIMARY KEY (id, type_id);
ALTER TABLE cover_art_archive.cover_art_type
    ADD FOREIGN KEY (id) REFERENCES cover_art_archive.cover_art (id) ON DELETE CASCADE;

ALTER TABLE event_art_archive.art_type ADD PRIMARY KEY (id);
ALTER TABLE event_art_archive.event_art ADD PRIMARY KEY (id);
ALTER TABLE event_art_archive.event_art
    ADD FOREIGN KEY (event) REFERENCES musicbrainz.event (id) ON DELETE CASCADE;
CREATE INDEX event_art_idx_event ON event_art_archive.event_art (event);
ALTER TABLE event_art_archive.event_art_type ADD PRIMARY KEY (id, type_id);
ALTER TABLE event_art_archive.event_art_type
    ADD FOREIGN KEY (id) REFERENCES event_art_archive.event_art (id) ON DELETE CASCADE;

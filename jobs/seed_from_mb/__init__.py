"""seed-from-mb gives every gid that MusicBrainz knows, or knew, a row in the audit table."""

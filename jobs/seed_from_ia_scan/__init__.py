"""seed-from-ia-scan seeds entities that archive.org has items for, in MusicBrainz or not."""

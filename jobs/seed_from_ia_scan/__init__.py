"""The job seed-from-ia-scan: entities that archive.org has items for, in MusicBrainz or not."""

"""State diffing: what MusicBrainz says an item should hold, what archive.org says it holds.

The modules here are pure: rows and bytes go in, findings and decisions come out. Nothing here
opens a connection, reads a clock or knows a job, and nothing here imports the rest of the project.

The order of an audit:

1. `expected.Expected` is built from database rows (and the web service's XML).
2. `actual.classify` says what archive.org's metadata answer means; `compare.downloads_needed` says
   which files of the item have to be read as well.
3. `compare.compare` turns both states into findings; `catalogue.CHECKS` names every kind of them.
4. `copies.compare_copies` says whether an image's owner has the same picture.
5. `decide.decide` turns the findings into a status, events for artwork-indexer, or reasons for a
   person to look (`reasons`).
"""

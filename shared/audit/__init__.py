"""Comparison of what MusicBrainz says an item should hold with what archive.org holds.

The modules here are pure: rows and bytes go in, findings and decisions come out. None of them opens
a connection, reads a clock or imports the rest of the project.

The steps of an audit:

1. `expected.Expected` is built from database rows and, if needed, the web service's XML.
2. `actual.classify` classifies archive.org's metadata answer; `compare.downloads_needed` names the
   files of the item that have to be read as well.
3. `compare.compare` turns both states into findings; `catalogue.CHECKS` lists every kind of
   finding.
4. `actual.compare_copies` determines whether an image's owner has the same image.
5. `decide.decide` turns the findings into a status, events for artwork-indexer, or reasons for a
   review.
"""

"""The outside services the jobs ask: archive.org, the MusicBrainz web service, LML.

One module per service, all over `shared.clients.http`. They turn answers into bytes, JSON
documents or small frozen dataclasses, and every way in which a service can fail to answer into
one of a few errors. What an answer means for an entity is decided elsewhere.
"""

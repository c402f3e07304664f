"""Clients of the outside services: archive.org, the MusicBrainz web service, LML.

One module per service, all on top of `shared.clients.http`. They turn answers into bytes, JSON
documents or small frozen dataclasses, and every failure of a service into one of a few errors.
Callers decide what an answer means for an entity.
"""

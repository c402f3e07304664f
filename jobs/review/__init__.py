"""review and events: the command line over `shared.review`.

`command` reads options and calls questions and actions; `views` shows what they return as tables,
JSON or CSV.
"""

"""library-artwork-url-backfill: gives rows of the WXYC library the cover that Discogs has for them.

| module         | what lives there                                                     |
|----------------|----------------------------------------------------------------------|
| `job`          | the five verbs, put together from the modules below                  |
| `library`      | the library's tables: which rows are candidates, how a URL gets in   |
| `lookup`       | asking Library Metadata Lookup (LML) about many albums               |
| `choice`       | which of the results is the album asked for, and is its URL usable   |
| `names`        | when two spellings name the same artist or album                     |
| `verification` | comparing the library before and after with what the run did         |

`choice`, `names` and `verification` do no input or output.
"""

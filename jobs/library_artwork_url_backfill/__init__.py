"""library-artwork-url-backfill gives rows of the WXYC library the cover that Discogs has for them.

| module      | contents                                                                       |
|-------------|--------------------------------------------------------------------------------|
| `job`       | the job, composed of the modules below                                         |
| `command`   | its command line                                                               |
| `models`    | rows, what was found for them, and what became of them                         |
| `choice`    | which of LML's pictures is the cover of a row: a table of rules                |
| `names`     | whether two spellings name the same artist or album                            |
| `pictures`  | what a URL says about its picture, and whether the catalogue may hold it       |
| `library`   | reading: the kind of database, and the candidates                              |
| `lookups`   | lookups at Library Metadata Lookup (LML), and limits on the speed of the job     |
| `writes`    | writing to the library so that its users never wait                            |
| `attempts`  | our table of rows that were looked up without a result                         |
| `changes`   | the file that lists what a run did with every album                            |
| `summary`   | reasons and examples for the report                                            |
| `undo`      | --undo: emptying rows that runs have written                                   |
| `existing`  | --check-existing: covers that are not covers                                   |

`choice`, `names`, `pictures` and `summary` do no input or output.
"""

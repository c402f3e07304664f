"""library-artwork-url-backfill: gives rows of the WXYC library the cover that Discogs has for them.

| module      | what lives there                                                               |
|-------------|--------------------------------------------------------------------------------|
| `job`       | the job, put together from the modules below                                   |
| `command`   | the job on the command line                                                    |
| `models`    | rows, and what was found for them                                              |
| `choice`    | which of LML's pictures is the cover of a row; a table of rules                |
| `names`     | when two spellings name the same artist or album                               |
| `pictures`  | what a URL says of its picture, and whether it may stand in the catalogue      |
| `library`   | reading: what kind of database it is, and which rows are candidates            |
| `lookups`   | asking Library Metadata Lookup (LML), politely                                 |
| `pace`      | questions to Discogs, and rows written                                         |
| `decisions` | a batch, from what was found to what is written and noted                      |
| `writes`    | writing to the library so that its users never wait                            |
| `attempts`  | our table of rows that were asked for in vain                                  |
| `changes`   | the file that says what a run did with every album                             |
| `summary`   | reasons and examples for the report                                            |
| `undo`      | --undo: taking back what runs have written                                     |
| `existing`  | --check-existing: covers that are none                                         |

`choice`, `names`, `pictures` and `summary` do no input or output.
"""

"""The dashboard: a page on which the people who own the archive see and settle what waits for them.

| module      | what lives there                                                               |
|-------------|--------------------------------------------------------------------------------|
| `access`    | who gets in, and at which addresses the dashboard may listen                   |
| `config`    | what the page is told through the environment                                  |
| `desk`      | a visitor's way to the database: questions read only, one transaction per change |
| `queries`   | one helper per question: filters in, a DataFrame out                           |
| `tables`    | the tables that the questions read, known without pandas                      |
| `show`      | text, tables, links and downloads in which nothing from outside is rendered    |
| `worklist`  | a list that stays as it was seen while a person works on it, and what was done |
| `tabs`      | the page's tabs, one module each                                               |
| `page`      | the page itself, the script that Streamlit runs                                |

The questions that the command line asks as well, and every change, are `shared.review`'s and
`shared.review.status`'s; here is only what a page adds to them. No job imports anything from here.
"""

"""The dashboard: a page on which the people who own the archive see and decide what waits for them.

| module       | what lives there                                                                |
|--------------|---------------------------------------------------------------------------------|
| `access`     | who gets in, and at which addresses and names the dashboard answers             |
| `guard`      | which requests the server answers, and what its page may load                   |
| `config`     | what the page is told through the environment                                   |
| `database`   | a visitor's way to the database: reads, and one transaction per change          |
| `queries`    | the questions that only the page asks; neither pandas nor Streamlit             |
| `address`    | the address bar: the tab, its filters, what is open                             |
| `memory`     | what is remembered of a visitor when their page is loaded again                 |
| `show`       | text, tables, differences and links in which nothing from outside is rendered   |
| `words`      | what the database's words mean to people                                        |
| `style`      | how the page looks beyond Streamlit's theme                                     |
| `worklist`   | a list that stays as it was seen while a person works on it                     |
| `action_bar` | the actions on a list: buttons, the question before many rows change            |
| `notices`    | what is said about the last action                                              |
| `bulk`       | one action on many rows, a batch at a time                                      |
| `downloads`  | lists as CSV, whole                                                             |
| `tabs`       | the page's tabs, one module each                                                |
| `page`       | the page itself, the script that Streamlit runs                                 |
| `serve`      | the server                                                                      |

The questions that the command line asks as well, and every change, are `shared.review`'s and
`shared.review.status`'s; here is only what a page adds to them. No job imports anything from here.
"""

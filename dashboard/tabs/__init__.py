"""The tabs of the page, one module each: `show(database)` draws it."""

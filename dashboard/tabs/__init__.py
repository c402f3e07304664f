"""The tabs of the page, one module each: `show(desk)` draws it."""

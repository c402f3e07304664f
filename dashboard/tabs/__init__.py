"""The tabs of the page, one module each: `show_tab` draws it."""

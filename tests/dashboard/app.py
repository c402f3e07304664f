"""The page in a test, run as Streamlit runs it but without a browser."""

from __future__ import annotations

from collections.abc import Callable

from streamlit.testing.v1 import AppTest

#: Opens a tab for another visitor, with further parameters of the address.
Open = Callable[..., AppTest]


def run(app: AppTest) -> AppTest:
    app.run()
    assert not app.exception
    return app


def press(app: AppTest, key: str) -> AppTest:
    app.button(key=key).click()
    return run(app)

"""The address bar: the tab, its filters, and what is open in it.

So a link shows a colleague the same, a reloaded page is where it was, and the browser's Back button
leads to the previous view. Widgets keep their values in Streamlit's session state. This module
reads them from the address when the browser sends another one, and writes them to it when they have
changed. Widgets with a field here must not have a default of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import streamlit as st

TAB: Final = "tab"

_KNOWN: Final = "address.known"
_PUBLISHED: Final = "address.published"

#: The key of the hidden field in which a browser says how many addresses it has received.
_HEARD: Final = "address.heard"


@dataclass(frozen=True, slots=True)
class Field:
    """One parameter of the address, and the key of its session state.

    `default` is not written. `options` are the accepted values, any text if empty; a tuple as
    `default` makes it a list, a number makes it a number.
    """

    name: str
    key: str
    default: str | int | tuple[str, ...] = ""
    options: Collection[str] = ()

    def read(self, given: Sequence[str]) -> Any:
        """Return the value of a parameter, or the default if it is invalid."""
        if isinstance(self.default, tuple):
            known = [value for value in given if value in self.options]
            return known if known else list(self.default)
        text = given[-1] if given else ""
        if isinstance(self.default, int):
            return (
                int(text)
                if text.isascii() and text.isdigit() and len(text) < 16
                else (self.default)
            )
        if self.options and text not in self.options:
            return self.default
        return text or self.default

    def write(self, value: Any) -> list[str]:
        """Return the text of a value in the address: nothing for the default."""
        if isinstance(self.default, tuple):
            return [] if tuple(value) == self.default else [str(one) for one in value]
        return [] if value in (None, self.default) else [str(value)]

    @property
    def initial(self) -> Any:
        """The default, in the form of a widget."""
        return list(self.default) if isinstance(self.default, tuple) else self.default


Fields = Mapping[str, Sequence[Field]]


def adopt(fields: Fields, first_tab: str) -> None:
    """Apply the address if the browser has sent another one.

    Parameters
    ----------
    fields
        The fields of each tab.
    first_tab
        The tab that is open if the address names none.
    """
    for field in (field for of_tab in fields.values() for field in of_tab):
        st.session_state.setdefault(field.key, field.initial)
    brought = {name: st.query_params.get_all(name) for name in st.query_params}
    known = st.session_state.get(_KNOWN)
    if known is not None and (brought == known or _is_late()):
        return
    st.session_state[_KNOWN] = brought
    tab = (brought.get(TAB) or [first_tab])[-1]
    tab = tab if tab in fields else first_tab
    st.session_state[TAB] = tab
    for field in fields[tab]:
        st.session_state[field.key] = field.read(brought.get(field.name, ()))


def _is_late() -> bool:
    """Return whether the browser acted before it had received the latest address.

    It then sends the previous one, as it does when a person goes back.
    """
    return st.session_state.get(_HEARD) != _published()


def publish(fields: Fields, first_tab: str) -> None:
    """Write what is shown now to the address, if it is not there yet."""
    shown = current(fields, first_tab)
    if st.session_state.get(_KNOWN) != shown:
        st.session_state[_KNOWN] = shown
        st.session_state[_PUBLISHED] = st.session_state.get(_PUBLISHED, 0) + 1
        st.query_params.from_dict(shown)
    # After the address: a browser that has this number has that address.
    st.session_state[_HEARD] = _published()
    with st.container(key="address-heard"):
        st.text_input("Address", key=_HEARD, label_visibility="collapsed")


def _published() -> str:
    return str(st.session_state.get(_PUBLISHED, 0))


def current(fields: Fields, first_tab: str) -> dict[str, list[str]]:
    """Return the address of what is shown now."""
    tab = st.session_state.get(TAB, first_tab)
    shown = {} if tab == first_tab else {TAB: [tab]}
    for field in fields[tab]:
        if values := field.write(st.session_state.get(field.key, field.initial)):
            shown[field.name] = values
    return shown


def restore(address: Mapping[str, list[str]]) -> None:
    """Go to an address that was stored during a login."""
    if address and not st.query_params:
        st.query_params.from_dict(address)


def go(tab: str, **values: Any) -> None:
    """Open a tab, with values for keys of the session state; for callbacks."""
    st.session_state[TAB] = tab
    for key, value in values.items():
        st.session_state[key] = value

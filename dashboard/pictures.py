"""Pictures of archive.org in the page, with their dimensions as the browser finds them.

archive.org's metadata has no dimensions, and the server fetches no pictures. The browser of the
person who asks for a picture measures it, with the only script of ours that the page may run.
"""

from __future__ import annotations

import base64
import hashlib
import html
from typing import Final

import streamlit as st

from artwork_backfill.shared.engine.log import plain

#: Suffixes that browsers show; for other files, such as PDF, use archive.org's thumbnail.
_SHOWN: Final = frozenset({"jpg", "jpeg", "png", "gif"})

#: `load` and `error` do not bubble, so they are caught on their way down.
_SCRIPT: Final = """
if (!window.measuresPictures) {
  window.measuresPictures = true;
  const say = (image, words) => {
    const caption = image.closest("figure.picture")?.querySelector("figcaption");
    if (caption) caption.textContent = words;
  };
  const measure = (image) => say(
    image, `${image.naturalWidth.toLocaleString("en")} by `
      + `${image.naturalHeight.toLocaleString("en")} pixels`);
  document.addEventListener("load", ({target}) => {
    if (target.matches?.("figure.picture img")) measure(target);
  }, true);
  document.addEventListener("error", ({target}) => {
    if (target.matches?.("figure.picture img")) say(target, "archive.org does not show it.");
  }, true);
  // Those that were there before this script.
  for (const image of document.querySelectorAll("figure.picture img"))
    if (image.complete && image.naturalWidth) measure(image);
}
"""

#: The source of the script for the Content-Security-Policy.
SCRIPT_HASH: Final = (
    f"'sha256-{base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()}'"
)


def measure() -> None:
    """Let the browser measure the pictures of the page from now on."""
    st.html(f"<script>{_SCRIPT}</script>", unsafe_allow_javascript=True)


def show(original: str, thumbnail: str, name: str) -> None:
    """Show a picture from an address that this project has built, and send its host no referrer.

    Parameters
    ----------
    original, thumbnail
        The addresses of both. The dimensions are those of the original if browsers can show it.
    name
        The alternative text of the picture.
    """
    is_shown = original.rpartition(".")[2].lower() in _SHOWN
    address = html.escape(original if is_shown else thumbnail)
    caption = "Loading …" if is_shown else "Its thumbnail"
    st.html(
        f'<figure class="picture"><a href="{html.escape(original)}" target="_blank"'
        f' rel="noreferrer noopener"><img src="{address}" alt="{html.escape(plain(name))}"'
        ' referrerpolicy="no-referrer" loading="lazy"></a>'
        f'<figcaption role="status">{caption}</figcaption></figure>'
    )

"""The style of the page beyond Streamlit's theme."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

#: The font size of the document is kept, so that people can enlarge it; `light-dark` follows the
#: theme, which sets the colour scheme.
CSS: Final = """
<style>
/* Room for the toolbar that Streamlit lays over the top, and no more. */
.block-container { padding-top: 3.9rem; padding-bottom: 3rem; }
.st-key-head h2 { font-size: 1.5rem; padding: 0; }
[data-testid="stMetricValue"] { font-size: 1.5rem; font-variant-numeric: tabular-nums; }

/* Streamlit's grey has a contrast of 3.9 to 1. */
[data-testid="stCaptionContainer"], [data-testid="stCaptionContainer"] p,
[data-testid="stMetricLabel"] p, [data-testid="stWidgetLabel"] p {
  color: light-dark(#4a4f5c, #c4c8d0); opacity: 1;
}

[data-testid="stButtonGroup"] [data-selected="true"] p { color: light-dark(#9c1b2b, #ff9aa2); }

/* Not for people: see page.py and address.py. */
[data-testid="stLayoutWrapper"]:has(> .st-key-session-token, > .st-key-address-heard) {
  display: none;
}

/* What can be done about a list stays in view. */
[data-testid="stLayoutWrapper"]:has(> .st-key-reviews-bar, > .st-key-events-bar) {
  position: sticky; bottom: 0; z-index: 20;
}
.st-key-reviews-bar, .st-key-events-bar {
  background: light-dark(#ffffff, #171614);
  box-shadow: 0 -4px 12px light-dark(rgb(0 0 0 / 8%), rgb(0 0 0 / 60%));
}

.st-key-at-work [data-testid="stText"] {
  font-size: .875rem; font-family: inherit; color: light-dark(#4a4f5c, #c4c8d0);
}

[class*="st-key-case-title"] { font-size: 1.4rem; font-weight: 600; }
[class*="st-key-case-title"] [data-testid="stText"] { font: inherit; }
.st-key-case-question, .st-key-case-decision {
  border-left: 4px solid #e9a03b; padding-left: .8rem;
}
.st-key-case-decision { border-color: #4c78d0; }
[data-testid="stText"] { white-space: pre-wrap; overflow-wrap: anywhere; }

a.download {
  font-size: .875rem; display: inline-block; padding: .4rem .75rem; border-radius: .5rem;
  text-decoration: none;
  border: 1px solid light-dark(#d5d6d8, #45474d); color: inherit; min-height: 1.6rem;
}
a.download:hover, a.download:focus-visible { border-color: light-dark(#9c1b2b, #ff9aa2); }

.differences { display: flex; flex-wrap: wrap; gap: .75rem; }
.differences > div { flex: 1 1 18rem; min-width: 0; }
.differences span { font-size: .8rem; color: light-dark(#4a4f5c, #c4c8d0); }
.differences pre {
  margin: 0; padding: .5rem .6rem; border-radius: .4rem; font-size: .85rem;
  white-space: pre-wrap; overflow-wrap: anywhere; max-height: 24rem; overflow: auto;
  background: light-dark(#f3f4f7, #1a1d26);
}
.differences del { background: light-dark(#ffd7d5, #67211f); text-decoration: none; }
.differences ins { background: light-dark(#c4f0ce, #14532d); text-decoration: none; }
figure.picture { margin: 0; }
figure.picture img { max-width: 100%; max-height: 22rem; border-radius: .4rem; }
figure.picture figcaption { font-size: .85rem; color: light-dark(#4a4f5c, #c4c8d0); }

.bar { display: flex; height: 1.6rem; border-radius: .4rem; overflow: hidden; margin: .2rem 0; }
.bar > div { min-width: 2px; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; font-size: .875rem; }
.legend i { display: inline-block; width: .8rem; height: .8rem; border-radius: .2rem;
  margin-right: .35rem; vertical-align: -.05rem; }

@media (max-width: 640px) {
  .st-key-reviews-filters > *, .st-key-events-filters > * {
    flex: 1 1 44% !important; width: 44% !important; min-width: 0;
  }
  .st-key-reviews-groups, .st-key-events-groups { flex-wrap: nowrap; overflow-x: auto; }
  .block-container { padding: 3.9rem .75rem 2rem; }
  [data-testid="stMetricValue"] { font-size: 1.2rem; }
  [data-testid="stLayoutWrapper"]:has(> .st-key-reviews-bar, > .st-key-events-bar) {
    position: static;
  }
}
</style>
"""


def counts(counted: Sequence[int]) -> str:
    """Return what shows a number behind the name of each tab; none for 0.

    The names themselves stay as they are: a tab with another name is another tab to Streamlit.
    """
    rules = [
        f'[data-testid="stTabs"] [role="tab"]:nth-of-type({position})::after'
        f' {{ content: "{count:,}"; margin-left: .4rem; padding: 0 .4rem; font-size: .75rem;'
        " border-radius: .6rem; background: light-dark(#e6e9ef, #2b303b); }"
        for position, count in enumerate(counted, 1)
        if count
    ]
    return f"<style>{' '.join(rules)}</style>"

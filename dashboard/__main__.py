"""The process that `artwork-backfill dashboard` becomes."""

from __future__ import annotations

from artwork_backfill.dashboard.serve import run

if __name__ == "__main__":
    run()

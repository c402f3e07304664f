"""Requests to a health-check service at the start of a run, after its success and its failure.

Such a service raises an alarm when a run fails, or when none has succeeded for too long. A failed
request never affects the run.
"""

from __future__ import annotations

import time
from threading import Thread
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from artwork_backfill.shared.engine.log import RunLog
from artwork_backfill.shared.version import VERSION

#: How long a run waits for the last ping, in seconds, and how often a ping is tried.
_PATIENCE_S: Final = 10.0
_ATTEMPTS: Final = 2
_BACKOFF_S: Final = 1.0


class Pinger:
    """Ping a URL from a thread of its own, if there is one.

    It is requested after a success; `/start` and `/fail` are appended to its path.
    """

    def __init__(self, url: str | None, log: RunLog) -> None:
        self._url = url
        self._log = log
        self._last: Thread | None = None

    def started(self) -> None:
        """Report that a run starts, without waiting for the answer."""
        self._ping("/start")

    def ended(self, exit_code: int) -> None:
        """Report how the run has ended, within ten seconds.

        A signal is not reported: if no later run succeeds, the service notices by itself.
        """
        if exit_code > 128:
            return
        self._ping("" if exit_code == 0 else "/fail")
        if self._last is not None:
            self._last.join(_PATIENCE_S)

    def _ping(self, what: str) -> None:
        if self._url is None:
            return
        parts = urlsplit(self._url)
        url = urlunsplit(parts._replace(path=parts.path.rstrip("/") + what))
        thread = Thread(target=self._ask, args=(url, self._last), name="ping", daemon=True)
        self._last = thread
        thread.start()

    def _ask(self, url: str, before: Thread | None) -> None:
        # Imported only if needed, by a thread that can wait for it.
        import requests

        deadline = time.monotonic() + _PATIENCE_S
        if before is not None:
            before.join(_PATIENCE_S / 2)
        trouble = "no answer in time"
        for attempt in range(_ATTEMPTS):
            left = deadline - time.monotonic() - attempt * _BACKOFF_S
            if left <= 0:
                break
            time.sleep(attempt * _BACKOFF_S)
            try:
                answer = requests.get(
                    url,
                    timeout=left / 2,  # for the connection, and once more for the answer
                    headers={"User-Agent": f"artwork-backfill/{VERSION}"},
                    stream=True,  # the content of the answer does not matter
                )
            except requests.RequestException as error:
                # Its message contains the URL, which is a secret.
                trouble = type(error).__name__
            else:
                answer.close()
                if answer.ok:
                    return
                trouble = f"status {answer.status_code}"
                if answer.status_code < 500:
                    break  # for example 404: the service does not know this URL
        self._log.warning(f"the health-check service did not answer: {trouble}")

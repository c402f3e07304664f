"""Downloads of files whose end only the connection's end shows."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from artwork_backfill.shared.clients.download import Download
from tests.timing import LIMIT_S

HEAD = {"Connection": "close"}  # and no length: the file ends with the connection


def test_a_file_without_a_length_is_read_to_the_end_of_its_connection(serve) -> None:
    def respond(exchange) -> None:
        exchange.start(**HEAD)
        exchange.wfile.write(b"one\ntwo\n")
        exchange.hang_up()

    with closing(Download(f"{serve(respond).url}/list", threading.Event())) as download:
        assert download.read(100) + download.read(100) == b"one\ntwo\n"
        assert download.read(100) == b""


def test_a_download_that_a_stop_cuts_short_does_not_look_complete(serve) -> None:
    is_over, stop_flag = threading.Event(), threading.Event()

    def respond(exchange) -> None:
        exchange.start(**HEAD)
        exchange.wfile.write(b"one\n")
        exchange.wfile.flush()
        is_over.wait(LIMIT_S)
        exchange.hang_up()

    with closing(Download(f"{serve(respond).url}/list", stop_flag)) as download:
        assert download.read(4) == b"one\n"
        stop_flag.set()
        with pytest.raises(OSError, match="stopping"):
            download.read(4)
        is_over.set()

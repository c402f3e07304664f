"""Killed at any moment and started again, a job ends with the tables of an undisturbed run."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

from tests.faults.fault_processes import JobProcess, wait_for
from tests.faults.fault_scenes import Scene, Watch


def test_killed_at_random_moments_a_job_ends_as_if_nothing_had_happened(
    scene: Scene, dice: random.Random, is_long: bool
) -> None:
    total = scene.undisturbed().done
    scene.slow_writes_down()
    kills = kills_left = 200 if is_long else 12
    at_work = 0
    with scene.watch() as watch:
        while kills_left:
            process = scene.start()
            wait_for_a_moment(process, watch, dice, (total - watch.done()) / kills_left)
            if process.kill():
                kills_left -= 1
                at_work += watch.done() < total
            wait_for(watch.is_alone)
    assert at_work > kills / 2, "most of the kills came when all was done"
    scene.finish()


def wait_for_a_moment(process: JobProcess, watch: Watch, dice: random.Random, share: float) -> None:
    """Wait until some moment of a run: while it starts, after so many rows, or within a write.

    `share` is how many rows the run may do, on average.
    """
    enough = watch.done() + dice.uniform(0, 2 * share)
    reached: dict[str, Callable[[], bool]] = {
        "starting": lambda: True,
        "working": lambda: watch.done() >= enough,
        "writing": lambda: watch.done() >= enough and watch.is_writing(),
    }
    moment = dice.choice(("starting", "working", "working", "writing", "writing"))
    wait_for(lambda: reached[moment]() or not process.is_running, process=process)
    time.sleep(dice.uniform(0, 0.02 if moment != "writing" else 0.01))


def test_asked_to_stop_a_job_ends_in_good_order_and_goes_on_later(
    scene: Scene, dice: random.Random, is_long: bool
) -> None:
    total = scene.undisturbed().done
    scene.slow_writes_down()
    stops = 40 if is_long else 3
    codes = []
    with scene.watch() as watch:
        for left in range(stops, 0, -1):
            share = (total - watch.done()) / left
            codes.append(stop_in_good_order(scene.start(), watch, dice.uniform(0, 2 * share)))
            wait_for(watch.is_alone)
    assert 143 in codes
    scene.finish()


def stop_in_good_order(process: JobProcess, watch: Watch, rows: float) -> int:
    """Ask a run to stop once it has done so many rows, and check how it does that.

    Returns the exit code; it may have been done, or about to end anyway.
    """
    before = watch.done()
    wait_for(lambda: process.lines or not process.is_running, process=process)
    wait_for(lambda: watch.done() >= before + rows or not process.is_running, process=process)
    process.send(signal.SIGTERM)
    code = process.wait()
    assert code in (0, 143), process.output
    assert process.report["exit_code"] == code
    assert process.report["outcome"] == ("stopped" if code else "verified")
    assert all(check["ok"] for check in process.report["verification"])
    assert watch.done() == before + process.report["totals"]["written"]
    assert watch.claims() == 0
    return code

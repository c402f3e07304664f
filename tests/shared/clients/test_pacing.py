"""Rate, concurrency, health and figures, each on a clock of its own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from artwork_backfill.shared.clients._pacing import Health, Interrupted, Meter, Pace


class TestPace:
    def test_spaces_turns_evenly(self, time):
        pace = Pace(2.0, clock=time.clock, stop_flag=time)
        for _ in range(4):
            pace.take_turn()
        assert time.waits == [0.5, 0.5, 0.5]

    def test_a_pause_is_not_followed_by_a_burst(self, time):
        pace = Pace(2.0, clock=time.clock, stop_flag=time)
        pace.take_turn()
        time.now += 60
        for _ in range(3):
            pace.take_turn()
        assert time.waits == [0.5, 0.5]

    def test_without_a_rate_nobody_waits(self, time):
        pace = Pace(None, clock=time.clock, stop_flag=time)
        for _ in range(100):
            pace.take_turn()
        assert time.waits == []

    def test_without_a_rate_slowing_down_halves_that_of_the_last_turns(self, time):
        pace = Pace(None, clock=time.clock, stop_flag=time)
        for _ in range(100):
            time.now += 0.1
            pace.take_turn()
        time.now += 0.1
        pace.slow_down()
        for _ in range(3):
            pace.take_turn()
        assert time.waits == pytest.approx([0.2, 0.2])
        for _ in range(50):
            pace.succeeded()
        time.waits.clear()
        time.now += 1
        for _ in range(3):
            pace.take_turn()
        assert time.waits == []

    def test_threads_share_the_rate(self):
        begun = 1000.0
        waits: list[float] = []

        class Recording(threading.Event):
            def wait(self, timeout=None):
                waits.append(timeout)
                return False

        pace = Pace(10.0, clock=lambda: begun, stop_flag=Recording())
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda _: pace.take_turn(), range(40)))
        # One thread went at once, the others each got a turn of their own.
        assert sorted(waits) == pytest.approx([n / 10 for n in range(1, 40)])

    def test_slowing_down_halves_the_rate_and_success_restores_it(self, time):
        pace = Pace(1.0, clock=time.clock, stop_flag=time)
        for _ in range(9):
            pace.slow_down()
            time.now += 10
        pace.take_turn()
        pace.take_turn()
        assert time.waits == [16.0]
        for _ in range(50):
            pace.succeeded()
        pace.take_turn()
        pace.take_turn()
        assert time.waits[2:] == [8.0]

    def test_one_wave_of_refusals_halves_once(self, time):
        pace = Pace(1.0, clock=time.clock, stop_flag=time)
        for _ in range(16):
            pace.slow_down()
        pace.take_turn()
        pace.take_turn()
        assert time.waits == [2.0]

    def test_a_hold_delays_everyone_and_spreads_them_afterwards(self, time):
        pace = Pace(2.0, clock=time.clock, stop_flag=time)
        pace.hold(30)
        pace.take_turn()
        pace.take_turn()
        assert time.waits == [30.0, 0.5]

    def test_a_hold_that_begins_while_a_thread_waits_makes_it_wait_again(self, time):
        class HoldingOnce(type(time)):
            def wait(self, timeout=None):
                if not self.waits:
                    pace.hold(10)
                return super().wait(timeout)

        holding = HoldingOnce()
        pace = Pace(1.0, clock=holding.clock, stop_flag=holding)
        pace.take_turn()
        pace.take_turn()
        assert holding.waits == [1.0, 9.0]

    @pytest.mark.parametrize("rate", [1.0, None])
    def test_nobody_gets_a_turn_once_the_run_stops(self, time, rate):
        pace = Pace(rate, clock=time.clock, stop_flag=time)
        pace.take_turn()
        time.set()
        with pytest.raises(Interrupted):
            pace.take_turn()


class TestHealth:
    def fail(self, health: Health, times: int) -> list[bool]:
        return [health.failed("HTTP 503") for _ in range(times)]

    def test_a_few_failures_at_the_start_are_no_trouble(self, time):
        assert not any(self.fail(Health(180, clock=time.clock), Health.ENOUGH - 1))

    def test_asks_for_slowness_when_half_fail_and_again_while_it_lasts(self, time):
        health = Health(180, clock=time.clock)
        assert self.fail(health, 12) == [False] * 9 + [True, False, False]
        time.now += Health.SLOW_DOWN_EVERY_S
        assert self.fail(health, 2) == [True, False]

    @pytest.mark.parametrize(
        ("successes", "failures", "trouble"), [(26, 24, False), (25, 25, True), (24, 26, True)]
    )
    def test_half_of_the_last_fifty_is_the_limit(self, time, successes, failures, trouble):
        health = Health(180, clock=time.clock)
        for _ in range(200 + successes):
            health.succeeded()
        assert any(self.fail(health, failures)) is trouble

    def test_is_down_only_after_its_patience(self, time):
        health = Health(180, clock=time.clock)
        self.fail(health, 10)
        time.now += 179
        self.fail(health, 1)
        assert health.down is None
        time.now += 1
        self.fail(health, 1)
        assert health.down is not None
        assert "12 of its last 12 requests failed" in health.down
        assert "HTTP 503" in health.down

    def test_recovers_when_more_than_half_succeed(self, time):
        health = Health(180, clock=time.clock)
        self.fail(health, 10)
        time.now += 180
        self.fail(health, 1)
        for _ in range(12):
            assert health.down is not None
            health.succeeded()
            down_after = health.down
        assert down_after is None

    def test_patience_begins_anew_after_a_recovery(self, time):
        health = Health(180, clock=time.clock)
        self.fail(health, 10)
        for _ in range(11):
            health.succeeded()
        time.now += 200
        self.fail(health, 20)
        assert health.down is None

    def test_what_was_before_a_long_silence_is_forgotten(self, time):
        health = Health(180, clock=time.clock)
        self.fail(health, 50)
        time.now += Health.FORGET_AFTER_S + 1
        self.fail(health, 9)
        assert health.down is None

    def test_is_down_after_a_silence_however_few_the_requests(self, time):
        health = Health(180, silence_s=300, clock=time.clock)
        for _ in range(9):
            time.now += 30
            health.failed("no answer", 30)
            assert health.down is None
        time.now += 30
        health.failed("no answer", 30)
        assert health.down is not None
        assert "not answered any request for 300 s; the last failure: no answer" in health.down

    def test_an_answer_ends_a_silence_and_an_idle_time_is_none(self, time):
        health = Health(180, silence_s=300, clock=time.clock)
        health.failed("no answer")
        time.now += 100
        health.succeeded()
        time.now += 100
        health.failed("no answer")
        time.now += Health.IDLE_AFTER_S + 180
        health.failed("no answer")
        assert health.down is None


class TestMeter:
    def test_has_no_latency_before_the_first_request(self):
        stats = Meter().stats()
        assert (stats.requests, stats.p50_ms, stats.p95_ms) == (0, 0.0, 0.0)

    def test_percentiles_of_few_requests_are_exact(self):
        meter = Meter()
        for ms in range(1, 1001):
            meter.request(ms / 1000)
        stats = meter.stats()
        assert (stats.requests, stats.p50_ms, stats.p95_ms) == (1000, 500.5, 950.1)

    def test_percentiles_of_many_are_those_of_a_fair_sample(self):
        meter = Meter()
        for n in range(50_000):
            meter.request(0.1 if n % 2 else 0.2 + n / 1e6)
        assert meter.stats().p95_ms == pytest.approx(245, abs=10)

    def test_one_request_is_enough(self):
        meter = Meter()
        meter.request(0.25)
        assert meter.stats().p95_ms == 250

    def test_counts_of_many_threads_add_up(self):
        meter = Meter()

        def count(_: int) -> None:
            meter.request(0.01)
            meter.retry()
            meter.error()

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(count, range(2000)))
        stats = meter.stats()
        assert (stats.requests, stats.retries, stats.errors) == (2000, 2000, 2000)

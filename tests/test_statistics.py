import threading

import attrs
import pytest

import rewright
from rewright import statistics
from rewright.statistics import Statistics

COUNTED = [
    field.name
    for field in attrs.fields(Statistics)
    if field.name not in ("fallbacks", "fallback_reasons")
]


def test_counters_start_at_zero():
    assert rewright.stats() == Statistics()


@pytest.mark.parametrize("name", COUNTED)
def test_record_adds_to_one_counter_and_no_other(name):
    statistics.record(**{name: 2})
    statistics.record(**{name: 3})
    assert rewright.stats() == Statistics(**{name: 5})


def test_a_snapshot_does_not_change():
    before = rewright.stats()
    statistics.record(graphs=1)
    assert before.graphs == 0
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        before.graphs = 1


def test_every_fallback_is_counted_with_its_reason():
    statistics.record_fallback("aten.nonzero at model.py:97")
    statistics.record_fallback("aten.unique at model.py:98")
    now = rewright.stats()
    assert now.fallbacks == 2
    assert now.fallback_reasons == ("aten.nonzero at model.py:97", "aten.unique at model.py:98")


def test_a_difference_has_what_happened_in_between():
    statistics.record(nodes=5)
    statistics.record_fallback("old")
    before = rewright.stats()
    statistics.record(nodes=2, rewrites=1)
    statistics.record_fallback("new")
    done = rewright.stats() - before
    assert done == Statistics(nodes=2, rewrites=1, fallbacks=1, fallback_reasons=("new",))


def test_reasons_are_bounded_and_the_latest_are_kept():
    before = rewright.stats()
    for number in range(1000):
        statistics.record_fallback(f"reason {number}")
    done = rewright.stats() - before
    assert done.fallbacks == 1000
    assert len(done.fallback_reasons) == 64
    assert done.fallback_reasons[-1] == "reason 999"


def test_a_difference_over_a_reset_is_refused():
    statistics.record(graphs=1)
    before = rewright.stats()
    rewright.reset_stats()
    with pytest.raises(ValueError, match="reset in between"):
        rewright.stats() - before


def test_reset_sets_everything_to_zero():
    statistics.record(**dict.fromkeys(COUNTED, 1))
    statistics.record_fallback("why")
    rewright.reset_stats()
    assert rewright.stats() == Statistics()


def test_no_increment_is_lost_between_threads():
    def work() -> None:
        for _ in range(500):
            statistics.record(nodes=1, rewrites=2)
            statistics.record_fallback("why")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    now = rewright.stats()
    assert (now.nodes, now.rewrites, now.fallbacks) == (4000, 8000, 4000)

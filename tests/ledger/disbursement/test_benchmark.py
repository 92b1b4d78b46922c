"""The benchmark of a day's run compares what it says: all sides write the same rows. No figure is judged here."""

from __future__ import annotations

from benchmarks.b10_disbursement import AT_ONCE, OURS, RAW, measure


def test_every_side_leaves_the_same_transfers_and_is_compared_with_the_raw_queries(database_server: str) -> None:
    found = measure(database_server, stores=200, rounds=1, connections=4)
    assert list(found["sides"]) == [OURS, RAW, AT_ONCE]
    assert found["sides"][RAW]["time_of_raw"] == [1.0, 1.0, 1.0]
    for side in found["sides"].values():
        assert side["seconds"] > 0
        assert side["peak_mb"] >= side["growth_mb"] >= 0

"""What was used last is kept."""

from bytestag.recent import Recent


def test_the_least_recently_used_makes_room():
    kept = Recent(2)
    assert kept.put("a", 1) is None
    assert kept.put("b", 2) is None
    assert kept.get("a") == 1
    assert kept.put("c", 3) == 2
    assert [kept.get(key) for key in "abc"] == [1, None, 3]
    assert kept.put("a", 4) is None
    assert (kept.pop("a"), kept.pop("a"), len(kept)) == (4, None, 1)
    assert (kept.clear(), len(kept)) == ([3], 0)

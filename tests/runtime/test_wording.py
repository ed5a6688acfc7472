import pytest

from salema.runtime.wording import counted, listed


@pytest.mark.parametrize(("count", "expected"), [(0, "0 videos"), (1, "1 video"), (2, "2 videos")])
def test_a_count_and_its_noun_agree(count, expected):
    assert counted(count, "video") == expected


@pytest.mark.parametrize(
    ("names", "expected"), [("", "none"), ("a", "a"), ("abc", "a, b, c"), ("abcd", "a, b, c and 1 more")]
)
def test_a_list_is_cut_where_it_gets_long(names, expected):
    assert listed(iter(names), 3) == expected

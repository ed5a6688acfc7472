from pathlib import Path

import pytest
from natsort import natsorted, ns

from salema.runtime.files.natural import by_name, natural_order


def test_numbers_in_names_are_ordered_by_value():
    names = ["10", "9", "0002", "a10", "a9", "v1_12", "v1_2"]
    assert natural_order(names, str) == ["0002", "9", "10", "a9", "a10", "v1_2", "v1_12"]


@pytest.mark.parametrize(
    "names", [["10", "9", "0010", "009"], ["b", "a", "B", "ab"], ["b", "10", "9"], ["é2", "é10", "e"]]
)
def test_the_short_ways_order_as_natsort_does(names):
    assert natural_order(names, str) == natsorted(names, alg=ns.INT)


def test_by_name_orders_paths_by_their_last_part():
    paths = [Path(name) for name in ("a/10.png", "b/9.png", "c/0001.png")]
    assert [path.name for path in by_name(paths)] == ["0001.png", "9.png", "10.png"]

import pytest

from salema.benchmarks.scores.failures import Failures
from salema.runtime.errors import MapError, UnreachableError


def attempt(failures, index, error=None):
    def work():
        if error is not None:
            raise error
        return index

    return failures.attempt("v", index, work)


def test_a_place_that_is_gone_ends_the_work_and_a_few_lost_answers_do_not():
    failures, lost = Failures(strict=False), UnreachableError("s3://a/1.png: can't be reached")
    for index in range(0, 100, 20):
        assert [attempt(failures, index + place, lost) for place in range(19)] == [None] * 19
        assert attempt(failures, index + 19) == index + 19
    assert failures.has("v", 98)
    assert not failures.has("v", 99)
    assert [attempt(failures, index, MapError("damaged")) for index in range(50)] == [None] * 50
    with pytest.raises(UnreachableError, match="s3://a/1.png: can't be reached"):
        [attempt(failures, index, lost) for index in range(20)]

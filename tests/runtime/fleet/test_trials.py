from salema.runtime.fleet.trials import Trials


def test_the_first_of_a_kind_makes_the_trial_and_the_others_wait_for_it():
    trials = Trials()
    assert [trials.may_open(name, "zen") for name in "abc"] == [True, False, False]
    assert trials.may_open("d", "arm")
    assert trials.opened("d", "arm", b"arm's") == []
    assert trials.opened("a", "zen", b"zen's") == ["b", "c"]
    assert trials.found == {"zen": b"zen's", "arm": b"arm's"}
    assert trials.may_open("e", "zen")
    assert trials.opened("e", "zen", b"its own") == []
    assert trials.found["zen"] == b"zen's"


def test_another_makes_it_where_the_first_one_dies():
    trials = Trials()
    assert [trials.may_open(name, "zen") for name in "abc"] == [True, False, False]
    assert trials.gone("b", "zen") == []
    (heir,) = trials.gone("a", "zen")
    assert (heir, trials.may_open(heir, "zen")) == ("c", True)
    assert not trials.may_open("d", "zen")
    assert trials.opened("c", "zen", None) == ["d"]
    assert trials.gone("c", "zen") == []


def test_a_kind_whose_workers_are_all_gone_begins_anew():
    trials = Trials()
    assert trials.may_open("a", "zen")
    assert trials.gone("a", "zen") == []
    assert trials.may_open("b", "zen")

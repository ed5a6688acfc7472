import pytest

from salema.runtime.errors import UsageError
from salema.training.recipes import RECIPES, Recipe, choose_recipe, first_epoch


def test_the_papers_recipe_is_the_published_table():
    paper = choose_recipe("paper", Recipe(), "DHF1K")
    assert (paper.optimiser, paper.lr, paper.weight_decay, paper.alpha_lr, paper.schedule) == (
        "adam",
        1e-6,
        1e-4,
        0.1,
        "constant",
    )
    assert (paper.bce, paper.kld, paper.cc, paper.nss, paper.reduction) == (1, 0, 0, 0, "sum")
    assert (paper.order, paper.clip_frames, paper.batch, paper.clip_norm) == ("videos", 10, 1, 10)
    assert (paper.dropout, paper.epochs, paper.thaw, paper.augment, paper.average) == (0.5, 7, True, False, 0)


@pytest.mark.parametrize(("dataset", "rate"), [("DHF1K", 1e-6), ("Hollywood-2", 1e-7), ("UCF-sports", 1e-7)])
def test_the_papers_rate_depends_on_the_dataset(dataset, rate):
    assert choose_recipe("paper", Recipe(), dataset).lr == rate


def test_options_replace_single_choices_of_the_recipe():
    chosen = choose_recipe("paper", Recipe(lr=3e-5, dropout=0.0, thaw=False), "Hollywood-2")
    assert (chosen.lr, chosen.dropout, chosen.thaw, chosen.epochs) == (3e-5, 0, False, 7)


@pytest.mark.parametrize("name", RECIPES)
def test_every_choice_of_a_recipe_is_made(name):
    assert None not in vars(RECIPES[name]).values()


@pytest.mark.parametrize(
    ("name", "given", "sentence"),
    [
        ("fast", Recipe(), "--recipe fast: not one of paper, default"),
        ("default", Recipe(optimiser="sgd"), "--optimiser sgd: not one of adam, adamw"),
        ("default", Recipe(schedule="step"), "--schedule step: not one of constant, cosine"),
        ("default", Recipe(lr=0.0), "--lr 0: give more than 0"),
        ("default", Recipe(lr=float("inf")), "--lr inf: give a number that is 0 or more"),
        ("default", Recipe(kld=float("nan")), "--kld nan: give a number that is 0 or more"),
        ("default", Recipe(weight_decay=-1.0), "--weight-decay -1: give a number that is 0 or more"),
        ("paper", Recipe(bce=0.0), "--bce, --kld, --cc and --nss are all 0"),
    ],
)
def test_a_wrong_choice_is_named(name, given, sentence):
    with pytest.raises(UsageError, match=sentence):
        choose_recipe(name, given, "DHF1K")


@pytest.mark.parametrize(
    ("key", "kind", "epoch"),
    [
        ("Gates.weight", "salclstm30", 1),
        ("salgan.60.bias", "salclstm30", 2),
        ("salgan.58.weight", "salclstm30", 2),
        ("salgan.56.weight", "salclstm30", 3),
        ("salgan.53.weight", "salclstm30", 3),
        ("salgan.51.weight", "salclstm30", 4),
        ("salgan.46.weight", "salclstm30", 5),
        ("salgan.0.weight", "salclstm30", 5),
        ("final_convs.0.weight", "salclstm56", 1),
        ("Gates.bias", "salclstm56", 1),
        ("salgan.53.weight", "salclstm56", 2),
        ("salgan.48.weight", "salclstm56", 3),
        ("salgan.41.weight", "salclstm56", 4),
        ("salgan.39.weight", "salclstm56", 5),
    ],
)
def test_the_gradual_thaw_is_the_published_one(key, kind, epoch):
    assert first_epoch(key, kind) == epoch

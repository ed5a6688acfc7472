import numpy as np

from salema.export.weights.seeded import checkpoint_shapes, moving_disc, seeded_state_dict


def test_full_size_is_the_published_network():
    count = {kind: sum(int(np.prod(s)) for s in checkpoint_shapes(kind).values()) for kind in ("salema", "salclstm30")}
    assert round(count["salema"] / 1e6, 2) == 31.79
    assert count["salclstm30"] - count["salema"] == 2048 * (1024 * 9 + 1)
    shapes = checkpoint_shapes("salclstm56")
    assert shapes["Gates.weight"] == (512, 256, 3, 3)
    assert [shapes[f"final_convs.{i}.weight"] for i in (0, 2, 4)] == [(64, 128, 3, 3), (64, 64, 3, 3), (1, 64, 1, 1)]
    assert "salgan.53.weight" in shapes
    assert "salgan.56.weight" not in shapes


def test_seeds_follow_from_the_key_alone():
    a, b = seeded_state_dict("salema", 32), seeded_state_dict("salclstm30", 32)
    np.testing.assert_array_equal(a["salgan.30.weight"], b["salgan.30.weight"])
    assert not np.array_equal(a["salgan.32.weight"], a["salgan.30.weight"])


def test_the_disc_moves():
    frames = moving_disc(2, 64, 96)
    assert frames[0, 16, 24].tolist() == [30, 220, 250]
    assert frames[1, 19, 29].tolist() == [30, 220, 250]
    assert frames[1, 0, 10].tolist() == [10 * 255 // 95, 0, 18]

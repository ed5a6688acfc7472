import cv2
import numpy as np
import pytest
from videos import DISC, write_clip

from salema.runtime import load
from salema.runtime.cli.run import main
from salema.runtime.output.bicubic import matlab_bicubic
from salema.runtime.output.map_size import levels_at
from salema.runtime.postprocess import to_levels

RAW = np.random.default_rng(0).random((6, 8), np.float32) * np.float32(0.4) + np.float32(0.2)
LIMITS = (RAW.min(), RAW.max())


@pytest.mark.parametrize(("bits", "most"), [(8, 255), (16, 65535)])
def test_levels_are_stretched_resized_and_rounded_once(bits, most):
    found = levels_at(RAW, LIMITS, (20, 31), bits)
    stretched = (RAW.astype(float) - RAW.min()) / (float(RAW.max()) - RAW.min()) * most
    resized = matlab_bicubic(stretched, (20, 31))
    assert resized.min() < 0  # bicubic goes beyond black and white, and a PNG can't
    assert resized.max() > most
    assert (found.shape, found.dtype) == ((20, 31), {8: np.uint8, 16: np.uint16}[bits])
    assert np.abs(found - resized.clip(0, most)).max() <= 0.5 + 1e-9
    assert (found.min(), found.max()) == (0, most)


def test_at_its_own_size_a_map_is_what_it_always_was():
    np.testing.assert_array_equal(levels_at(RAW, LIMITS, RAW.shape), to_levels(RAW, LIMITS))
    flat = levels_at(np.full((6, 8), 0.3, np.float32), (np.float32(0.3), np.float32(0.3)), (9, 9))
    assert (flat.shape, flat.max()) == ((9, 9), 0)


@pytest.mark.parametrize("bits", [8, 16])
def test_maps_at_the_size_of_the_source(cli, model, tmp_path, bits):
    frames = np.stack([cv2.resize(image, (150, 100)) for image in DISC])
    write_clip(tmp_path / "a.mkv", frames)
    arguments = ("--model", model, "--no-video", "--map-bits", bits, "--npz", tmp_path / "a.npz")
    assert cli(main, tmp_path / "a.mkv", *arguments, "--maps", tmp_path / "m", "--map-size", "source").code == 0
    with np.load(tmp_path / "a.npz") as archive:
        raw = archive["maps"]
    for number, saliency in enumerate(raw, 1):
        found = cv2.imread(str(tmp_path / f"m/{number:04d}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(found, levels_at(saliency, (saliency.min(), saliency.max()), (100, 150), bits))


def test_of_a_dataset_each_map_has_its_frames_size(cli, model, tmp_path):
    sizes = [(48, 64), (100, 150), (64, 96)]
    for number, size_hw in enumerate(sizes, 1):
        (tmp_path / f"src/{number}").mkdir(parents=True)
        cv2.imwrite(str(tmp_path / f"src/{number}/1.png"), cv2.resize(DISC[0], size_hw[::-1]))
    places = ("--src", tmp_path / "src", "--dst", tmp_path / "dst", "--naming", "groundtruth")
    ran = cli(main, "--dataset", "other", *places, "--model", model, "--map-size", "source")
    assert ran.code == 0, ran.err
    with load(model) as stream:
        for number, size_hw in enumerate(sizes, 1):
            stream.reset()
            saliency = stream.step(cv2.imread(str(tmp_path / f"src/{number}/1.png")))
            found = cv2.imread(str(tmp_path / f"dst/{number}/1.png"), cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(found, levels_at(saliency, (saliency.min(), saliency.max()), size_hw))


@pytest.mark.parametrize("arguments", [("a.mkv",), ("--dataset", "other", "--src", "s", "--dst", "d")])
def test_another_size_is_refused(cli, model, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "a.mkv", DISC)
    ran = cli(main, *arguments, "--model", model, "--map-size", "large")
    assert (ran.code, ran.err) == (2, "salema-run: --map-size large: not one of network, source\n")

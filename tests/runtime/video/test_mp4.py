import itertools
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from videos import probe, write_clip

from salema.export.weights.seeded import moving_disc
from salema.runtime.video.mp4 import FRAGMENTED, copy_for_players, count_pictures, cut_to_whole_fragments

FACTS = ("rate", "times", "duration_s", "size_hw", "aspect", "sound", "sound_start_s")


def fragmented(tmp_path, **options):
    """Four seconds in fragments of half a second."""
    frames = np.repeat(moving_disc(50, 64, 96), 2, 0)
    return write_clip(tmp_path / "f.mp4", frames, muxer=FRAGMENTED, **options)


def boxes(data):
    """Returns kind and end of each outermost box."""
    outermost, start = [], 0
    while start < len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        start += length
        outermost.append((kind, start))
    return outermost


def test_a_copy_for_players_has_the_same_pictures_and_facts(tmp_path):
    def setup(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    path = fragmented(tmp_path, setup=setup, audio="aac")
    assert copy_for_players(path, tmp_path / "p.mp4") == 100
    assert [kind for kind, _ in boxes(path.read_bytes())][:4] == [b"ftyp", b"moov", b"moof", b"mdat"]
    kinds = [kind for kind, _ in boxes((tmp_path / "p.mp4").read_bytes())]
    assert sorted(set(kinds) - {b"free"}) == [b"ftyp", b"mdat", b"moov"]
    assert kinds.index(b"moov") < kinds.index(b"mdat")
    before, after = probe(path), probe(tmp_path / "p.mp4")
    np.testing.assert_array_equal(after["images"], before["images"])
    assert {fact: after[fact] for fact in FACTS} == {fact: before[fact] for fact in FACTS}


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(7)])
def test_lengths_survive_fragments_and_copy(tmp_path, rate):
    pts = [0, 1, 2, 5, 6, 11, 12, 30]
    path = write_clip(tmp_path / "f.mp4", moving_disc(8, 64, 96), rate=rate, pts=pts, muxer=FRAGMENTED)
    copy_for_players(path, tmp_path / "p.mp4")
    np.testing.assert_allclose(probe(tmp_path / "p.mp4")["times"], np.array(pts) / float(rate), atol=1e-4)
    assert probe(tmp_path / "p.mp4")["duration_s"] == probe(path)["duration_s"]


def test_a_file_cut_off_anywhere_plays_up_to_its_last_whole_fragment(tmp_path):
    path = fragmented(tmp_path)
    data = path.read_bytes()
    whole = [0] + [end for kind, end in boxes(data) if kind == b"mdat"]
    assert len(whole) >= 8
    counts = []
    for size in [*range(0, len(data), 9973), *whole, *(end - 1 for end in whole[1:])]:
        path.write_bytes(data[:size])
        cut_to_whole_fragments(path)
        assert path.stat().st_size == max(end for end in whole if end <= size)
        counts.append((path.stat().st_size, count_pictures(path)))
    counts.sort()
    assert counts[0] == (0, 0)
    assert counts[-1] == (len(data), 100)
    assert all(b[1] - a[1] <= 15 for a, b in itertools.pairwise(counts))  # half a second and a few


def test_zeros_of_a_power_cut_are_cut_off(tmp_path):
    path = fragmented(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data + bytes(5000))
    cut_to_whole_fragments(path)
    assert path.read_bytes() == data


def test_a_file_that_is_no_mp4_holds_no_pictures(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"something else entirely")
    assert count_pictures(path) == 0
    with pytest.raises(av.error.FFmpegError):
        copy_for_players(path, tmp_path / "b.mp4")

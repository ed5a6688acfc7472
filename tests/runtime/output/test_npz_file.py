import zipfile

import numpy as np
import pytest

from salema.runtime.output.npz_file import NpzFile


@pytest.mark.parametrize("count", [1, 9, 10, 1000])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (40, 50)])
def test_the_file_reads_as_one_array_with_a_right_checksum(tmp_path, count, shape):
    values = np.random.default_rng(0).random((count, *shape), np.float32)
    with NpzFile(tmp_path / "a.npz") as file:
        for one in values:
            file.append(one)
        file.finish(times_s=np.arange(count) / 25)
    assert zipfile.ZipFile(tmp_path / "a.npz").testzip() is None
    with np.load(tmp_path / "a.npz") as archive:
        assert archive.files == ["maps", "times_s"]
        np.testing.assert_array_equal(archive["maps"], values)
        np.testing.assert_array_equal(archive["times_s"], np.arange(count) / 25)
        assert archive["maps"].dtype == np.float32


def test_arrays_need_not_lie_in_order_in_memory(tmp_path):
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    with NpzFile(tmp_path / "a.npz") as file:
        for one in values:
            file.append(np.asfortranarray(one))
        file.finish()
    np.testing.assert_array_equal(np.load(tmp_path / "a.npz")["maps"], values)

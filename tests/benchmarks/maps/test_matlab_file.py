import struct
import zlib

from limits import run_in_little_memory
from scipy import io, sparse

IMPORTS = """
from scipy import io, sparse
from salema.benchmarks.maps.matlab_file import read_matlab
from salema.runtime.errors import MapError
"""
READ = """
try:
    print(read_matlab(path).shape)
except MapError as error:
    print(error)
"""


def element(kind, data):
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def write_mat(path, shape, pieces):
    """A compressed matrix of uint8 with what shape it likes to say, and other data than that."""
    length = sum(map(len, pieces))
    flags = element(6, struct.pack("<II", 9, 0))
    head = flags + element(5, struct.pack("<ii", *shape)) + element(1, b"I") + struct.pack("<II", 2, length)
    stream = zlib.compressobj(1)
    packed = stream.compress(struct.pack("<II", 14, len(head) + length) + head)
    packed += b"".join(map(stream.compress, pieces)) + stream.flush()
    start = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    path.write_bytes(start + struct.pack("<II", 15, len(packed)) + packed)
    return path


def test_a_whole_one_is_read(tmp_path):
    path = write_mat(tmp_path / "a.mat", (2, 4), [bytes([1, 2, 3, 4, 5, 6, 7, 8])])
    assert io.loadmat(path)["I"].tolist() == [[1, 3, 5, 7], [2, 4, 6, 8]]
    assert run_in_little_memory(IMPORTS, READ, path) == "(2, 4)\n"


def test_declared_sizes_are_believed_before_anything_is_unfolded(tmp_path):
    bomb = write_mat(tmp_path / "a.mat", (40_000, 50_000), [bytes(1 << 20)] * 300)
    told = f"{bomb}: is 50000x40000 by its header, and 134 million pixels are the most; make it smaller\n"
    assert run_in_little_memory(IMPORTS, READ, bomb) == told


def test_a_file_that_inflates_to_more_than_it_declares_is_refused(tmp_path):
    bomb = write_mat(tmp_path / "a.mat", (2, 2), [bytes(1 << 20)] * 600)
    assert bomb.stat().st_size < 4_000_000
    told = f"{bomb}: unfolds to more than 536.9 MB, which no map has; make it anew\n"
    assert run_in_little_memory(IMPORTS, READ, bomb) == told


def test_a_sparse_matrix_of_any_size_is_a_small_file(tmp_path):
    io.savemat(tmp_path / "a.mat", {"I": sparse.csc_matrix(([1.0], ([0], [0])), (60_000, 40_000))})
    assert "a.mat: is 40000x60000 by its header" in run_in_little_memory(IMPORTS, READ, tmp_path / "a.mat")

"""What a node is asked for."""

import fsspec

from salema.runtime.files.remote_path import as_path
from salema.runtime.fleet.shared import Shared
from salema.runtime.spec import salema_version


def test_what_a_node_lacks(tmp_path):
    (tmp_path / "mark").touch()
    version, absent = salema_version(), tmp_path / "absent"
    assert Shared(version, (tmp_path,), tmp_path, "mark").missing_here() == ""
    assert Shared(version, (tmp_path, absent)).missing_here().startswith(f"can't see {absent}; mount it there too")
    assert (
        Shared(version, (), absent).missing_here() == f"can't see {absent}; mount it there too, or name a place by URL"
    )
    assert Shared(version, (), tmp_path, "other").missing_here().startswith(f"can't see {tmp_path}; mount it there too")
    assert (
        Shared("0.0.1", ()).missing_here().startswith(f"has salema {version}, and the command was started with 0.0.1")
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mark"]


def test_a_node_asks_for_a_url_itself_whatever_a_listing_elsewhere_said():
    files = fsspec.filesystem("memory")
    files.pipe_file("/asked/src/1.png", b"image")
    files.pipe_file("/asked/src/2.png", b"")
    listed = tuple(as_path("memory://asked/src").iterdir())
    assert Shared(salema_version(), listed, as_path("memory://asked/dst")).missing_here() == ""
    assert files.find("/asked") == ["/asked/src/1.png", "/asked/src/2.png"]  # the trial is removed
    files.rm_file("/asked/src/1.png")
    lack = Shared(salema_version(), listed).missing_here()
    assert lack.startswith("can't see memory://asked/src/1.png; mount it there too")

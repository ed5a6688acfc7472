import pytest
from serving import serving


@pytest.fixture(scope="module")
def served(model, small_clip):
    """A server with one source."""
    with serving(model, small_clip) as one:
        yield one

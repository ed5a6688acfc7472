import shutil

import pytest

from salema.export.options import EngineOptions
from salema.export.serving.emit import emit


@pytest.fixture(scope="package")
def repository(exported, tmp_path_factory):
    """Gives the folder of an exported model with any batch, and beside it what a server takes."""
    made = {}

    def make(target="triton", **options):
        key = (target, *options.items())
        if key not in made:
            made[key] = tmp_path_factory.mktemp("served") / "model"
            shutil.copytree(exported(batch=None, **options), made[key])
            emit(made[key], target, "auto", EngineOptions(), lambda _: None)
        return made[key]

    return make

"""What each worker of a cluster is given, by the cluster's nodes and the model's files."""

from types import SimpleNamespace

import pytest

from salema.runtime.cli import ray_mode
from salema.runtime.cli.opening import Opening
from salema.runtime.errors import BackendError
from salema.runtime.fleet.size import Size
from salema.runtime.model_folder import look_up

CPU, GPU = SimpleNamespace(cores=4, gpus=0), SimpleNamespace(cores=8, gpus=2)


@pytest.fixture
def sized(tmp_path):
    """Gives the size and the arguments of `load`, by nodes, options and names of files in the model's folder."""

    def size(*nodes, files=("model.onnx",), jobs=None, **options):
        for name in files:
            (tmp_path / name).touch()
        cluster, opening = SimpleNamespace(nodes=lambda: nodes), Opening(tmp_path, **options)
        found = ray_mode._size(cluster, opening, look_up(tmp_path), 1, jobs)
        return found, ray_mode._arguments(cluster, opening, found)["device"]

    return size


def test_a_model_without_an_engine_takes_the_cores_of_all_nodes(sized, capsys):
    assert sized(CPU, GPU) == (Size(12, 1, 0), "cpu")
    assert (
        "note: no GPU is used, as there is no engine; --device cuda takes the nodes with a GPU"
        in capsys.readouterr().err
    )
    assert sized(CPU, GPU, device="cpu") == (Size(12, 1, 0), "cpu")
    assert sized(CPU, CPU) == (Size(8, 1, 0), "auto")
    assert sized(CPU, GPU, backend="ncnn") == (Size(12, 1, 0), "auto")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("files", "options"),
    [
        (("model.onnx",), {"device": "cuda"}),
        (("model.onnx",), {"backend": "onnxruntime-tensorrt"}),
        (("model.onnx", "model.engine"), {}),
    ],
)
def test_what_runs_on_gpus_takes_one_each_and_says_what_is_left(sized, capsys, files, options):
    assert sized(CPU, GPU, files=files, **options) == (Size(2, 1, 1), options.get("device", "auto"))
    assert "note: nodes without a GPU are not used; --device cpu takes the CPUs of all\n" in capsys.readouterr().err


def test_without_a_gpu_in_the_cluster_cuda_is_refused(sized):
    with pytest.raises(BackendError, match="--device cuda: the cluster has no GPU that Ray knows of"):
        sized(CPU, device="cuda")


def test_more_jobs_than_fit_wait_for_nodes(sized, capsys):
    size, _ = sized(CPU, jobs=6)
    assert size == Size(6, 1, 0)
    spec = SimpleNamespace(architecture="SalEMA30", precision="fp32", trained=True)
    cluster = SimpleNamespace(nodes=lambda: [CPU])
    ray_mode._announce(spec, cluster, size, 6, 1)
    ray_mode._announce(spec, cluster, size, 4, 1)
    assert capsys.readouterr().err.splitlines() == [
        "SalEMA30 fp32 on Ray: 6 workers of 1 core, 1 node; 4 fit now, and the others wait for nodes",
        "SalEMA30 fp32 on Ray: 4 workers of 1 core, 1 node",
    ]

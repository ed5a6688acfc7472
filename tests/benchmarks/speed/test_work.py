"""Operations and bytes are counted in the graph, and agree with the architecture."""

import onnx
import pytest

from salema.benchmarks.speed.work import LayerWork, Work, count_work, taps_inside
from salema.export.int8.quantize import SCHEMES, layers_of, quantize
from salema.export.weights.architecture import LAYERS
from salema.export.weights.seeded import checkpoint_shapes
from salema.runtime.model_folder import look_up


def multiplications(divisor, height, width):
    """From the published layers alone."""
    shapes, total = checkpoint_shapes("salema", divisor), 0
    for index, layer in enumerate(LAYERS):
        if layer == "M":
            height, width = height // 2, width // 2
        elif layer == "U":
            height, width = height * 2, width * 2
        elif layer == "C":
            out, inp, rows, columns = shapes[f"salgan.{index}.weight"]
            total += out * inp * rows * columns * height * width
    return total


def test_the_published_network_has_39_95_billion_multiplications_a_frame():
    assert multiplications(1, 192, 256) == pytest.approx(39.95e9, rel=1e-3)


@pytest.mark.parametrize("options", [{}, {"batch": None}, {"split": True}, {"precision": "fp16"}])
def test_operations_are_two_per_multiplication(exported, options):
    work = count_work(look_up(exported(**options)).onnx_files(), batch=1)
    assert work.operations == 2 * multiplications(16, 64, 96)
    assert len(work.layers) == 27


def test_a_batch_multiplies_operations_and_activations_but_not_weights(exported):
    one, three = (count_work(look_up(exported(batch=None)).onnx_files(), batch) for batch in (1, 3))
    assert three.operations == 3 * one.operations
    weights = (3 * one.bytes_in("fp32") - three.bytes_in("fp32")) / 2
    assert weights == 4 * sum(
        out * inp * rows * columns
        for out, inp, rows, columns in (s for s in checkpoint_shapes("salema", 16).values() if len(s) == 4)
    )


@pytest.mark.parametrize(("target", "share"), [("openvino", 4 / 9), ("onnxruntime", 4 / 9)])
def test_folded_upsampling_needs_less_than_half_of_its_convolutions_work(exported, target, share):
    plain, folded = (count_work(look_up(exported(for_=for_)).onnx_files(), 1) for for_ in ("any", target))
    after_upsampling = [index for index, layer in enumerate(LAYERS) if layer == "C" and LAYERS[index - 1] == "U"]
    convolutions = [index for index, layer in enumerate(LAYERS) if layer == "C"]
    for index, one, other in zip(convolutions, plain.layers, folded.layers, strict=True):
        if index not in after_upsampling:
            assert one.operations == other.operations
        else:  # the crops compute a border that is thrown away
            assert share <= other.operations / one.operations < share * 1.6


def test_the_time_by_a_product_is_the_sum_of_each_layers_slower_side():
    work = Work((LayerWork("computes", 1000, 900, 10), LayerWork("copies", 10, 9, 1000)))
    assert work.ideal_ms("fp32", 1e3, 1e3) == pytest.approx(1e3 * (1000 / 1e3 + 4000 / 1e3))
    assert work.ideal_ms("int8", 1e3, 1e3) == pytest.approx(1e3 * (1000 / 1e3 + 1000 / 1e3))


def test_taps_on_padding_are_not_done(exported):
    layers = count_work(look_up(exported()).onnx_files(), 1).layers
    first, last = layers[0], layers[-1]  # 64x96 with a kernel of 3x3, and of 1x1
    assert first.done_operations / first.operations == pytest.approx((3 * 64 - 2) * (3 * 96 - 2) / (9 * 64 * 96))
    assert last.done_operations == last.operations


@pytest.mark.parametrize(
    ("places", "size", "taps", "pad", "stride", "dilation", "inside"),
    [(5, 5, 3, 1, 1, 1, 13), (3, 5, 3, 1, 2, 1, 7), (5, 5, 3, 2, 1, 2, 11), (4, 8, 4, 1, 2, 1, 14)],
)
def test_taps_inside(places, size, taps, pad, stride, dilation, inside):
    assert taps_inside(places, size, taps, pad, stride, dilation) == inside


def test_a_transposed_layer_is_cut_off_at_the_border(exported):
    """It takes the place of a plain one: four phases of 2x2 taps, of which those of the plain one's padding are cut."""
    plain, folded = (count_work(look_up(exported(for_=for_)).onnx_files(), 1) for for_ in ("any", "openvino"))
    index = next(
        index
        for index, (a, b) in enumerate(zip(plain.layers, folded.layers, strict=True))
        if a.operations != b.operations
    )
    assert folded.layers[index].operations * 9 == pytest.approx(plain.layers[index].operations * 4)
    assert folded.layers[index].done_operations < folded.layers[index].operations


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_int8_layers_are_told_from_those_left_in_float(exported, tmp_path, target):
    proto = onnx.load(look_up(exported(for_=target)).onnx_files()[0])
    names = list(layers_of(proto))
    kept = frozenset(names[3:5])
    onnx.save(quantize(proto, dict.fromkeys(names, (-1.0, 1.0)), SCHEMES[target], 8, kept), tmp_path / "int8.onnx")
    layers = count_work([tmp_path / "int8.onnx"], 1).layers
    assert [layer.is_int8 for layer in layers] == [name not in kept for name in names]

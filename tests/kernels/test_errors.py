import re

import pytest

from salema.kernels.errors import explain

# What CUDA 12 and 13, TensorRT 10 and 11 and TensorRT-RTX 1.7 say, and a word of the fix.
MESSAGES = {
    "cuInit failed: no CUDA-capable device is detected": "no NVIDIA GPU is visible",
    "CUDA initialization failure with error: 35 In checkCudaInstallation at /_src/runtime.cpp:960": "no NVIDIA driver",
    "Error Code 1: Cuda Runtime (In ScopedCudaStream (cudaError 35: CUDA driver version is insufficient for CUDA"
    " runtime version))": "no NVIDIA driver",
    "libcuda.so.1: cannot open shared object file: No such file or directory": "no NVIDIA driver",
    "cuMemAlloc failed: out of memory": "too little free memory.*smaller --imgsz or --batch",
    "Error Code 2: OutOfMemory (Requested size was 4294967296 bytes.)": "too little free memory.*--workspace",
    "[virtualMemoryBuffer.cpp::resizePhysical] Error Code 2: OutOfMemory (no further information)": "too little free",
    "CUDA_ERROR_OUT_OF_MEMORY": "too little free memory",
    "bad allocation": "too little free memory",
    "the provided PTX was compiled with an unsupported toolchain.": "no NVIDIA driver that is new enough",
    "system has unsupported display driver / cuda driver combination": "no NVIDIA driver that is new enough",
    "all CUDA-capable devices are busy or unavailable": "in use by another program",
    "Error Code 10: Internal Error (Could not find any implementation for node {ForeignNode[conv + relu]} due to"
    " insufficient workspace.": "larger --workspace",
    "Unable to load library: libnvinfer_builder_resource.so.10.3.0": "installed in part",
    "Assertion convHasBaseShader failed: doesn't have base shader": "--optimization-level 3",
    "invalid device ordinal": "nvidia-smi -L",
    "no kernel image is available for execution on the device": "holds no code for this GPU",
    "The engine plan file is not compatible with this version of TensorRT, expecting library version 10.3.0.26 got"
    " 10.0.1.6, please rebuild.": "build it again here with: salema-export --from",
    "The engine plan file is generated on an incompatible device, expecting compute 8.7 got compute 8.9, please"
    " rebuild.": "build it again here",
    "Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed.Version tag does not match.": "build it",
    "cuStreamSynchronize failed: an illegal memory access was encountered": "stopped with a fault",
    "operation not permitted when stream is capturing": "--no-cuda-graph",
    "operation failed due to a previous error during capture": "--no-cuda-graph",
    "operation would result in a merge of separate capture sequences": "--no-cuda-graph",
    'In node 4 with name: node_relu and operator: X (checkFallbackPluginImporter): INVALID_NODE: creator && "Plugin not'
    ' found, are the plugin name, version, and namespace correct?"': "lacks an operation",
}


@pytest.mark.parametrize("message", MESSAGES)
def test_every_known_message_becomes_one_sentence_with_the_fix(message):
    sentence = explain(message)
    assert "\n" not in sentence
    assert re.search(MESSAGES[message], sentence), sentence
    assert " ".join(message.split())[:100] in sentence


def test_words_that_only_look_like_a_cause():
    for message in ("captured 3 frames", "device memory is fine"):
        assert explain(message) == f"{message}; salema-doctor shows what works here"


def test_an_unknown_message_is_told_as_it_is_and_cut_to_one_line():
    assert explain("some\n  news") == "some news; salema-doctor shows what works here"
    assert len(explain("x" * 1000)) < 400

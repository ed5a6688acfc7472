"""Finds, in our sources, every class, enum value and method of TensorRT that they name."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNTIME = ("runtime/gpu/trt_engine.py", "runtime/gpu/trt_library.py")
BUILDER = ("export/engine/builder.py", "export/engine/progress.py")
# What our variables hold, by their names.
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "shapes": "IOptimizationProfile",
    "layer": "ILayer",
    "tensor": "ITensor",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "_engine": "ICudaEngine",
    "context": "IExecutionContext",
    "_context": "IExecutionContext",
    "inspector": "EngineInspector",
    "_cache": "IRuntimeCache",
    "runtime_config": "IRuntimeConfig",
}


def used_names(files):
    """Dotted names under the library's module, such as `BuilderFlag.TF32` and `Runtime.deserialize_cuda_engine`."""
    found = set()
    for file in files:
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if isinstance(node, ast.Attribute):
                path = _dotted(node)
                if "trt" in path[:-1]:
                    found.add(".".join(path[path.index("trt") + 1 :]))
                elif len(path) > 1 and path[-2] in CLASSES:
                    found.add(f"{CLASSES[path[-2]]}.{path[-1]}")
    return {name for name in found if name and not name.startswith("__")}


def missing_names(module, names):
    """Those of the names that a module does not have."""
    return sorted(name for name in names if not _has(module, name))


def _dotted(node):
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id if isinstance(node, ast.Name) else "", *reversed(parts)]


def _has(module, name):
    value = module
    for part in name.split("."):
        if not hasattr(value, part):
            return False
        value = getattr(value, part)
    return True

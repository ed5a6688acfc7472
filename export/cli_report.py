"""What `salema-export` prints about its results."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from salema.export.weights.architecture import Architecture
from salema.runtime.telling import show

if TYPE_CHECKING:
    from salema.export.engine.to_engine import Built
    from salema.export.exporter import Result
    from salema.export.graph.verify import Report
    from salema.export.int8.to_int8 import Int8Report
    from salema.export.serving.emit import Emitted


def report(result: Result | None, built: tuple[Built, ...], emitted: Emitted | None = None, *, as_json: bool) -> None:
    """Prints the export and what was written for a server, if any, and the engines, for people or as JSON."""
    if as_json:
        server = {"server": {emitted.target: [str(path) for path in emitted.paths]}} if emitted else {}
        engines = [{"path": str(one.path), "size_bytes": one.size_bytes, **asdict(one.info)} for one in built]
        print(json.dumps({**_model_record(result), "engines": engines, **server}))
        return
    if result is not None and result.int8 is not None and result.int8.sensitivity:
        _print_sensitivity(result.int8)
    written = {emitted.target: ", ".join(map(str, emitted.paths))} if emitted else {}
    for rows in (_model_rows(result) if result else {}, *map(_engine_rows, built), written):
        for name, value in rows.items():
            show(f"{name:<17} {value}")


def _print_sensitivity(int8: Int8Report) -> None:
    show(f"{'layer':<17} least CC where it alone is INT8")
    for layer, value in int8.sensitivity:
        show(f"{layer:<17} {value:.6f}{'  left in float' if layer in int8.float_layers else ''}")
    show("")


def _model_record(result: Result | None) -> dict[str, Any]:
    if result is None:
        return {}
    record: dict[str, Any] = {"paths": [str(path) for path in result.paths], "size_bytes": result.size_bytes}
    int8 = None if result.int8 is None else asdict(result.int8)
    ncnn = None if result.ncnn is None else asdict(result.ncnn)
    return {**record, "spec": asdict(result.spec), "check": asdict(result.report), "ncnn_check": ncnn, "int8": int8}


def _model_rows(result: Result) -> dict[str, str]:
    spec, check = result.spec, result.report
    coefficient = "none" if spec.coefficient is None else f"{spec.coefficient:.6g}, {spec.coefficient_source}"
    reference = {} if spec.coefficient is None else {"reference rate": f"{spec.reference_fps:g} fps"}
    recurrence = Architecture.named(spec.architecture, plain_recurrence=spec.plain_recurrence).recurrence
    states = ", ".join(f"{state.name} {'x'.join(map(str, state.shape_chw))}" for state in spec.states) or "none"
    return {
        "model": f"{', '.join(map(str, result.paths))} ({result.size_bytes / 1e6:.1f} MB)",
        "architecture": f"{spec.architecture}, {result.architecture_source}",
        **({"recurrence": recurrence} if recurrence else {}),
        "frame": f"{spec.batch or 'N'}x{spec.height}x{spec.width}x3 uint8 BGR",
        "states": f"{states} (float32 per stream)" if spec.states else states,
        "coefficient": coefficient,
        **reference,
        "precision": spec.precision,
        "map difference": f"max {check.map_max:.2g}, mean {check.map_mean:.2g} (at most {check.tolerance:g})",
        "state difference": f"relative {check.state_error:.2g} (at most {check.tolerance:g})",
        "least CC": f"{check.cc:.6f} over {check.frames} frames with a reset",
        "control": f"noise differs by {check.control_max:.2g}",
        **(_ncnn_rows(result.ncnn) if result.ncnn else {}),
        **(_int8_rows(result.int8) if result.int8 else {}),
    }


def _ncnn_rows(check: Report) -> dict[str, str]:
    return {"ncnn's difference": f"max {check.map_max:.2g}, state relative {check.state_error:.2g}"}


def _int8_rows(int8: Int8Report) -> dict[str, str]:
    accuracy = int8.accuracy
    return {
        "INT8": f"{int8.activations} activations, {int8.weight_bits}-bit weights per channel; in float:"
        f" {', '.join(int8.float_layers) or 'none'}",
        "calibrated on": f"{int8.calibration_frames} frames in {int8.calibration_runs} runs, of"
        f" {', '.join(int8.sources)}",
        "INT8 against FP32": f"{accuracy.steps} steps over {accuracy.frames} held-out frames, there and back, no reset",
        "  CC": f"least {accuracy.cc:.6f}, mean {accuracy.cc_mean:.6f} (at least {accuracy.least_cc:g})",
        "  NSS": f"changes by at most {accuracy.nss_delta:.3f}",
        "  SIM": f"least {accuracy.sim:.4f}, mean {accuracy.sim_mean:.4f} (1 is equal)",
        "  map difference": f"max {accuracy.map_max:.2g}, mean {accuracy.map_mean:.2g}",
        "  drift": f"CC {accuracy.drift_cc:+.5f}, max difference {accuracy.drift_max:+.2g},"
        " last 30 steps less the first 30",
        "  control": f"least CC {accuracy.control_cc:.3f} where INT8 is shown noise",
    }


def _engine_rows(built: Built) -> dict[str, str]:
    info = built.info
    least, best, most = info.batch_profile
    shown_by = {
        "inspector": "shown by the engine's inspector",
        "network": "typed so in the network; the engine is inspected when it is loaded, on the GPU",
    }
    return {
        "engine": f"{built.path} ({built.size_bytes / 1e6:.1f} MB, built in {info.build_seconds:.1f} s)",
        "for": f"{info.backend} {info.library_version}, {', '.join(info.targets)}",
        "streams": f"{least}" if least == most else f"{least} to {most}, best {best}",
        "convolutions": f"{info.convolutions} in {info.spec.precision}, {shown_by[info.precision_shown_by]}",
    }

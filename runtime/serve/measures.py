"""What the server measures: for Prometheus in all, for the page of each stream's last frames."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from importlib.metadata import version
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.process_collector import ProcessCollector

CLIENTS, IMAGES = "clients", "images"  # labels; each source has its name
_RECENT = 300
_RECENT_S = 5.0
_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Metrics:
    """The Prometheus metrics of one server. Clients share a label, so that they can't make ever more of them.

    Attributes:
        last_map_s: when the last map of any stream came, by `time.monotonic`.
    """

    def __init__(self, model: str, backend: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        own: dict[str, Any] = {"registry": self.registry}
        info = Info("salema", "The version, the model and its backend.", **own)
        info.info({"version": version("salema"), "model": model, "backend": backend})
        self.frames = Counter("salema_frames", "Frames that went through the network.", ["stream"], **own)
        self.dropped = Counter("salema_dropped_frames", "Frames left out.", ["stream", "reason"], **own)
        latency = "Seconds from a frame's arrival to its map."
        self.latency = Histogram("salema_latency_seconds", latency, ["stream"], buckets=_BUCKETS_S, **own)
        self.refused = Counter("salema_refused", "Connections and requests that were refused.", ["reason"], **own)
        self.streams = Gauge("salema_client_streams", "Clients that send frames.", **own)
        self.viewers = Gauge("salema_viewers", "Clients that watch a source.", **own)
        self.source_up = Gauge("salema_source_up", "1 while a source gives frames.", ["stream"], **own)
        self.last_map_s = -math.inf

    def text(self) -> bytes:
        """Returns all metrics as Prometheus reads them."""
        return bytes(generate_latest(self.registry))


class Pace:
    """The speed of one stream over its last frames. Threads may share it."""

    def __init__(self, metrics: Metrics, label: str) -> None:
        self._metrics, self._label = metrics, label
        self._lock = threading.Lock()
        self._times_s: deque[float] = deque(maxlen=_RECENT)
        self._latencies_ms: deque[float] = deque(maxlen=_RECENT)
        self._frames = self._dropped = 0

    def frame(self, latency_s: float) -> None:
        """Counts a frame that went through the network."""
        self._metrics.frames.labels(self._label).inc()
        self._metrics.latency.labels(self._label).observe(latency_s)
        self._metrics.last_map_s = time.monotonic()
        with self._lock:
            self._frames += 1
            self._times_s.append(time.monotonic())
            self._latencies_ms.append(1000 * latency_s)

    def drop(self, count: int, why: str) -> None:
        """Counts frames that were left out."""
        if count:
            self._metrics.dropped.labels(self._label, why).inc(count)
            with self._lock:
                self._dropped += count

    def summary(self) -> dict[str, float | int | None]:
        """Returns frames and drops so far, the rate of the last seconds, and latencies of the last frames."""
        with self._lock:
            recent = [moment for moment in self._times_s if moment > time.monotonic() - _RECENT_S]
            latencies = sorted(self._latencies_ms)
            frames, dropped = self._frames, self._dropped
        fps = (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 and recent[-1] > recent[0] else 0.0
        return {
            "frames": frames,
            "dropped": dropped,
            "fps": round(fps, 2),
            "latency_p50_ms": _percentile(latencies, 0.5),
            "latency_p99_ms": _percentile(latencies, 0.99),
        }


def _percentile(ordered: list[float], share: float) -> float | None:
    """Returns the least value that so great a share of the values does not exceed."""
    if not ordered:
        return None
    return round(ordered[max(math.ceil(share * len(ordered)), 1) - 1], 2)

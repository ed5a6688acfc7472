"""An RTSP server (RFC 2326) for one H.264 stream over TCP, as small as a camera's: it can be cut off and come back."""

import contextlib
import socket
import struct
import threading
import time

import av
import numpy as np

SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=disc\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:0\r\n"
)


class RtspServer:
    """Plays frames in a loop, in real time, to each client in turn."""

    def __init__(self, frames, rate=25):
        self._frames, self._rate = frames, rate
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"rtsp://user:secret@127.0.0.1:{self._listener.getsockname()[1]}/disc"
        self.clients = 0
        self._client = None
        self._closed = False
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def cut_off(self):
        """Drops the client."""
        with contextlib.suppress(OSError):
            self._client.shutdown(socket.SHUT_RDWR)

    def close(self):
        """Drops the client, and takes no other."""
        self._closed = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self.cut_off()
        self._thread.join(5)
        self._listener.close()

    def _accept(self):
        while not self._closed:
            with contextlib.suppress(OSError):
                self._client, _ = self._listener.accept()
                self.clients += 1
                with self._client:
                    self._serve(self._client)

    def _serve(self, client):
        with client.makefile("rb") as stream:
            self._answer(client, stream)

    def _answer(self, client, stream):
        while request := stream.readline().decode().split():
            headers = {}
            while line := stream.readline().decode().strip():
                name, _, value = line.partition(": ")
                headers[name.lower()] = value
            answer = [f"RTSP/1.0 200 OK\r\nCSeq: {headers['cseq']}\r\nSession: 1\r\n"]
            if request[0] == "OPTIONS":
                answer.append("Public: DESCRIBE, SETUP, PLAY, TEARDOWN\r\n\r\n")
            elif request[0] == "DESCRIBE":
                answer.append(f"Content-Type: application/sdp\r\nContent-Length: {len(SDP)}\r\n\r\n{SDP}")
            elif request[0] == "SETUP":
                answer.append("Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n")
            else:
                answer.append("\r\n")
            client.sendall("".join(answer).encode())
            if request[0] == "PLAY":
                threading.Thread(target=self._play, args=(client,), daemon=True).start()

    def _play(self, client):
        """FFmpeg makes packets and sends them to a port of ours; from there they go to the client, each in a frame."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
            port.bind(("127.0.0.1", 0))
            port.settimeout(0)
            url = f"rtp://127.0.0.1:{port.getsockname()[1]}?pkt_size=1200"
            with contextlib.suppress(OSError), av.open(url, "w", format="rtp") as container:
                options = {"preset": "ultrafast", "tune": "zerolatency", "g": "10"}
                stream = container.add_stream("libx264", rate=self._rate, options=options)
                stream.height, stream.width = self._frames.shape[1:3]
                stream.pix_fmt = "yuv420p"
                start = time.monotonic()
                for index in range(100_000):
                    image = np.ascontiguousarray(self._frames[index % len(self._frames)])
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
                    self._forward(port, client)
                    time.sleep(max(0, start + index / self._rate - time.monotonic()))

    @staticmethod
    def _forward(port, client):
        with contextlib.suppress(BlockingIOError):
            while packet := port.recv(65536):
                client.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)

# TensorRT on a Jetson with JetPack 6.1 or 6.2, built on the Jetson itself:
# docker build -f deploy/docker/jetson.Dockerfile -t salema:jetson .
# The base holds CUDA 12.6, TensorRT 10.3 and Python 3.10; the drivers come from the host, by the NVIDIA runtime.
FROM nvcr.io/nvidia/l4t-jetpack:r36.4.0
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/salema/bin:/usr/local/cuda/bin:$PATH
# GStreamer: its pipelines reach the hardware decoder.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends \
    g++ gstreamer1.0-plugins-bad gstreamer1.0-plugins-good gstreamer1.0-tools python3-dev python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# TensorRT's bindings are the system's. cuda-bindings 13 are for drivers of CUDA 13.
# hadolint ignore=DL3013
RUN python3 -m venv --system-site-packages /opt/salema \
 && pip install '.[cuda,serve]' 'cuda-bindings<13' \
 && pip uninstall --yes opencv-python \
 && pip install 'opencv-python-headless>=4.8' \
 && rm -rf /src/*
ENV PYTHONUNBUFFERED=1 HOME=/srv/salema
WORKDIR /srv/salema
RUN chown 10001:10001 /srv/salema
USER 10001:10001
EXPOSE 8008
CMD ["salema-run", "--help"]

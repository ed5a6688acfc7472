# TensorRT on a desktop GPU or in a server: docker build -f deploy/docker/cuda.Dockerfile -t salema:cuda .
ARG CUDA=13.0.1
FROM nvidia/cuda:${CUDA}-devel-ubuntu24.04 AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ python3-dev python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# PyCUDA is compiled here, against this toolkit.
RUN python3 -m venv /opt/salema \
 && /opt/salema/bin/pip install '.[tensorrt,serve]' \
 && /opt/salema/bin/pip uninstall --yes opencv-python \
 && /opt/salema/bin/pip install 'opencv-python-headless>=4.8' \
 && /opt/salema/bin/pip uninstall --yes pip

# NVRTC and cuRAND, which PyCUDA is linked to, are in this one.
FROM nvidia/cuda:${CUDA}-runtime-ubuntu24.04
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/salema /opt/salema
ENV PATH=/opt/salema/bin:$PATH PYTHONUNBUFFERED=1 HOME=/srv/salema NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /srv/salema
RUN chown 10001:10001 /srv/salema
USER 10001:10001
EXPOSE 8008
CMD ["salema-run", "--help"]

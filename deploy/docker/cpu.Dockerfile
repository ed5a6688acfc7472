# salema-run and salema-serve on a CPU, with nano: docker build -f deploy/docker/cpu.Dockerfile -t salema:cpu .
ARG BASE=python:3.12-slim-trixie
FROM ${BASE} AS build
# PyTorch's package index for CPU builds: PyPI's brings gigabytes of CUDA libraries to the build.
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY . .
# The window of --show has no place here, and opencv-python would need a display's libraries.
RUN python3 -m venv /opt/salema \
 && /opt/salema/bin/pip install '.[cpu,serve]' \
 && /opt/salema/bin/pip uninstall --yes opencv-python \
 && /opt/salema/bin/pip install 'opencv-python-headless>=4.8' \
 && /opt/salema/bin/pip uninstall --yes pip
RUN python3 -m venv /tmp/export \
 && /tmp/export/bin/pip install -c constraints.txt '.[cpu,export]' \
 && /tmp/export/bin/pip uninstall --yes opencv-python \
 && /tmp/export/bin/pip install 'opencv-python-headless>=4.8' \
 && /tmp/export/bin/salema-export --weights nano --engine none -o /srv/salema/salema-model

FROM ${BASE}
COPY --from=build /opt/salema /opt/salema
# The user may write beside the model, where the trial of the backends is kept.
COPY --from=build --chown=10001:10001 /srv/salema /srv/salema
ENV PATH=/opt/salema/bin:$PATH PYTHONUNBUFFERED=1 HOME=/srv/salema
WORKDIR /srv/salema
USER 10001:10001
EXPOSE 8008
# Each command works as it is: docker run salema:cpu salema-run /data/video.mp4
CMD ["salema-run", "--help"]

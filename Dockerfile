# syntax=docker/dockerfile:1
# The same two scripts that the Makefile calls; tests/test_packaging.py keeps this file honest.

FROM python:3.11-slim AS build
WORKDIR /app
ENV PIP_NO_CACHE_DIR=1
# Packages and models first: a layer that only a change of requirements/ builds again.
COPY requirements requirements
COPY scripts/setup.sh scripts/fetch_models.py scripts/
RUN scripts/setup.sh packages
COPY pyproject.toml README.md LICENSE ./
COPY wire wire
COPY providers providers
COPY pipelines pipelines
COPY transports transports
COPY server server
COPY demo demo
RUN scripts/setup.sh project

# Every package comes as a wheel, so there is no compiler to leave behind. espeak-ng is a program of its own (GPL).
FROM python:3.11-slim
WORKDIR /app
COPY scripts/system_packages.sh scripts/
RUN scripts/system_packages.sh espeak-ng && rm -rf /var/lib/apt/lists/* \
    && useradd --system --user-group --uid 10001 --no-create-home voice \
    && install -d -o voice -g voice -m 0700 /data
COPY --from=build /app /app
# onnxruntime reports its use to Microsoft unless told not to.
ENV HOST=0.0.0.0 DATA_DIR=/data LOG_FORMAT=json PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1
USER voice
VOLUME /data
EXPOSE 1337
# No proxy: an http_proxy of the container's environment is not for its own loopback.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["/app/.venv/bin/python", "-c", \
    "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open('http://127.0.0.1:' + (os.environ.get('PORT') or '1337') + '/health', timeout=2)"]
ENTRYPOINT ["/app/.venv/bin/voice-gateway"]
CMD ["serve"]

# Two images: `docker build .` makes the whole one, with Node and uv for stdio upstreams that are started by `npx` or `uvx`;
# `docker build --target slim .` makes one without them. The build stage keeps pip's leftovers out of both.
FROM python:3.13-slim-bookworm AS build
WORKDIR /app
COPY requirements.txt .
RUN python -m venv .venv && .venv/bin/python -m pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: -r requirements.txt

# uv at the version, and with the hashes, that the tests use.
FROM python:3.13-slim-bookworm AS uv
COPY requirements-dev.txt .
RUN awk '/^[a-z]/ {keep = /^uv==/} keep' requirements-dev.txt > uv.txt && python -m pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: --target /uv -r uv.txt

FROM node:22-bookworm-slim AS node

FROM python:3.13-slim-bookworm AS slim
RUN useradd --system --uid 10001 --home-dir /var/lib/mcp-sentinel --create-home sentinel
WORKDIR /app
COPY --from=build /app/.venv .venv
COPY . .
RUN ln -s /app/deploy/container /usr/local/bin/mcp-sentinel
USER sentinel
ENV SENTINEL_VAR=/var/lib/mcp-sentinel SENTINEL_HOST=0.0.0.0 PYTHONUNBUFFERED=1
VOLUME /var/lib/mcp-sentinel
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD [".venv/bin/python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["mcp-sentinel"]
CMD ["serve"]

# The commands of stdio upstreams are run as the user `sentinel` too, confined; their home, and so the caches of npx and uvx, is
# the folder `commands` of the volume.
FROM slim AS full
USER root
COPY --from=uv /uv/bin/uv /uv/bin/uvx /usr/local/bin/
COPY --from=node /usr/local/bin/node /usr/local/bin/
COPY --from=node /usr/local/lib/node_modules /usr/local/lib/node_modules
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm && ln -s ../lib/node_modules/npm/bin/npx-cli.js /usr/local/bin/npx
USER sentinel

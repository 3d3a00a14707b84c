# Two stages: the build stage keeps pip's leftovers out of the image.
FROM python:3.13-slim-bookworm AS build
WORKDIR /app
COPY requirements.txt .
RUN python -m venv .venv && .venv/bin/python -m pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: -r requirements.txt

FROM python:3.13-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /var/lib/mcp-sentinel --create-home sentinel
WORKDIR /app
COPY --from=build /app/.venv .venv
COPY . .
USER sentinel
ENV SENTINEL_VAR=/var/lib/mcp-sentinel SENTINEL_HOST=0.0.0.0 PYTHONUNBUFFERED=1
VOLUME /var/lib/mcp-sentinel
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD [".venv/bin/python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
STOPSIGNAL SIGTERM
CMD [".venv/bin/python", "manage.py", "serve"]

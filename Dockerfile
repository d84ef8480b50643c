# One image for the web process, the worker and the release step: `gunicorn`, `flask forward`, `flask db upgrade`.
ARG BASE=docker.io/library/python:3.13-slim

FROM ${BASE} AS packages
COPY requirements.txt /
RUN python3 -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes -r /requirements.txt

FROM ${BASE}
# Not root, and nothing can be written by it but `instance/` and `/data`, where a volume with SQLite's file may be.
RUN useradd --uid 10001 --home-dir /app --no-create-home --shell /usr/sbin/nologin app
COPY --from=packages /venv /venv
WORKDIR /app
# `providers.toml` and `sections.toml`, where there are any, are among the last.
COPY .flaskenv Procfile gunicorn.conf.py *.toml ./
COPY webhook_app webhook_app
# The console shows them.
COPY docs/esps docs/esps
RUN mkdir instance /data && chown app instance /data
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PORT=8000
# A web process has many threads, and glibc keeps what each has used of the memory for itself: 20 MB less under load.
ENV MALLOC_ARENA_MAX=2
# Its own disk does not last: SQLite is refused but on a volume, or by its whole path.
ENV ESP_WEBHOOKS_IMAGE=1
USER app
EXPOSE 8000
CMD ["gunicorn"]

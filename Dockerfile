# The image holds the jobs and what they need to run, nothing else: `make image` builds it.

FROM python:3.13-slim-bookworm AS build
WORKDIR /src
COPY requirements.txt requirements-build.txt ./
# First what changes seldom, so that a changed job does not install everything anew.
RUN pip install --no-cache-dir --require-hashes --requirement requirements-build.txt \
 && python -m venv --without-pip /opt/artwork-backfill \
 && pip --python /opt/artwork-backfill/bin/python install --no-cache-dir \
        --require-hashes --requirement requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY dashboard dashboard
COPY jobs jobs
COPY shared shared
COPY sql sql
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /opt/wheels . \
 && pip --python /opt/artwork-backfill/bin/python install --no-cache-dir \
        --no-deps /opt/wheels/*.whl


FROM python:3.13-slim-bookworm
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="artwork-backfill" \
      org.opencontainers.image.description="Jobs that bring cover-art data back in step" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Reports are written here, usually to a folder of the host: see the README.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin backfill \
 && install --directory --owner backfill --group backfill /reports
COPY --from=build /opt/artwork-backfill /opt/artwork-backfill
ENV PATH="/opt/artwork-backfill/bin:${PATH}" \
    PYTHONUNBUFFERED=1
WORKDIR /reports
USER 10001
# In this form the job is process 1 itself, and hears the signals that are to stop it.
STOPSIGNAL SIGTERM
ENTRYPOINT ["artwork-backfill"]

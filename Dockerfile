# The image contains only the jobs and what they need to run; `make image` builds it.
#
# The base is named once, so that Dependabot or `make base-digest` can pin it to a digest.
FROM python:3.14-slim-trixie AS base


FROM base AS build
# Behind a proxy: --build-arg PIP_INDEX_URL=..., --build-arg CA_CERTIFICATE="$(cat ca.pem)"; the
# proxy itself is HTTPS_PROXY, which every builder passes on.
ARG PIP_INDEX_URL
ARG CA_CERTIFICATE
WORKDIR /src
RUN if [ -n "${CA_CERTIFICATE}" ]; then \
        printf '%s\n' "${CA_CERTIFICATE}" > /opt/ca.pem \
     && pip config --global set global.cert /opt/ca.pem; \
    fi
COPY requirements.txt requirements-build.txt ./
# Layers that rarely change come first, so that a change of a job does not rebuild them.
RUN pip install --no-cache-dir --require-hashes --requirement requirements-build.txt \
 && python -m venv --without-pip /opt/artwork-backfill \
 && pip --python /opt/artwork-backfill/bin/python install --no-cache-dir \
        --require-hashes --requirement requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY dashboard dashboard
COPY jobs jobs
COPY shared shared
COPY sql sql
# The build context has no history to take the version from.
ARG VERSION=0.0.0
RUN SETUPTOOLS_SCM_PRETEND_VERSION_FOR_ARTWORK_BACKFILL="${VERSION}" \
    pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /opt/wheels . \
 && pip --python /opt/artwork-backfill/bin/python install --no-cache-dir \
        --no-deps /opt/wheels/*.whl


FROM base
ARG VERSION=0.0.0
ARG REVISION
ARG CREATED
ARG SOURCE
LABEL org.opencontainers.image.title="artwork-backfill" \
      org.opencontainers.image.description="Jobs that keep cover-art data consistent" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.base.name="docker.io/library/python:3.14-slim-trixie"
# Reports are written here, usually to a mounted folder. Group 0 may write as well: OpenShift, and
# `docker run --user UID`, run the image as a user that it does not know, in that group.
RUN useradd --uid 10001 --gid 0 --no-create-home --shell /usr/sbin/nologin backfill \
 && install --directory --owner backfill --group 0 --mode 0775 /reports
COPY --from=build /opt/artwork-backfill /opt/artwork-backfill
# PYTHONSAFEPATH: no module is imported from the folder of reports, which others may write to.
ENV PATH="/opt/artwork-backfill/bin:${PATH}" \
    PYTHONUNBUFFERED=1 \
    PYTHONSAFEPATH=1 \
    ARTWORK_BACKFILL_CONTAINER=1
WORKDIR /reports
USER 10001:0
# In this form the job is process 1 itself and receives the signals that stop it.
STOPSIGNAL SIGTERM
ENTRYPOINT ["artwork-backfill"]

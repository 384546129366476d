# docker build -t spraylab .
# docker run --rm --privileged -v "$PWD/results:/opt/spraylab/results" spraylab run quick
#
# --privileged: a fabric is made of network namespaces, mounts and Open vSwitch. Plans, reports and unit tests need none.
# debian:trixie-slim and ubuntu:24.04 do as well: --build-arg IMAGE=...
ARG IMAGE=debian:bookworm-slim
FROM $IMAGE
WORKDIR /opt/spraylab
ENV PIP_NO_CACHE_DIR=1

# From what changes least to what changes most; the launcher installs here as it does anywhere.
COPY spraylab ./
RUN ./spraylab --setup system && rm -rf /var/lib/apt/lists/*
# What programs of your own need: --build-arg EXTRA='openmpi-bin libopenmpi-dev gcc libc6-dev' for MPI's.
ARG EXTRA=
RUN [ -z "$EXTRA" ] || { apt-get update && apt-get install --yes --no-install-recommends $EXTRA && rm -rf /var/lib/apt/lists/*; }
COPY constraints.txt setup.cfg pyproject.toml ./
RUN ./spraylab --setup
COPY . .

ENTRYPOINT ["/opt/spraylab/spraylab"]
CMD ["--help"]

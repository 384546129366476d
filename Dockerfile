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
COPY constraints.txt setup.cfg pyproject.toml ./
RUN ./spraylab --setup
COPY . .

ENTRYPOINT ["/opt/spraylab/spraylab"]
CMD ["--help"]

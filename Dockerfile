# The gateway in a container: one binary, one user without rights, one volume.
#
#   docker build -t tappass .
#   docker run -p 9620:9620 -v tappass-data:/data \
#     -e TAPPASS_ADMIN_KEY -e TAPPASS_BOOTSTRAP_AGENT_KEY -e OPENAI_API_KEY tappass

FROM rust:1.95-slim-bookworm AS build
WORKDIR /build

# The allocator is built by its own Makefile.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/*

# Dependencies alone, so that this layer is made again only when the manifest or the lock file changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked \
    && rm -rf src

# The product. `config`, `migrations` and `policies` are compiled into the binary. The sources may be older than the
# stand-ins above, and cargo goes by time: without the touch it would keep the empty program.
COPY config config
COPY migrations migrations
COPY policies policies
COPY src src
RUN touch src/main.rs src/lib.rs \
    && cargo build --release --locked

FROM debian:bookworm-slim

# `ca-certificates` for whatever else runs here (the gateway carries its own roots); `curl` because published compose
# files ask `curl -f http://localhost:9620/health` inside the container.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 tappass \
    && useradd --no-log-init --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin tappass \
    && install --directory --owner=10001 --group=10001 --mode=0700 /data

COPY --from=build /build/target/release/tappass /usr/local/bin/tappass
COPY LICENSE /usr/share/doc/tappass/LICENSE

ENV TAPPASS_DATA__DIR=/data \
    TAPPASS_SERVER__HOST=0.0.0.0
# The data folder of `tappass audit export` is `data` below here, unless it is told otherwise: the volume.
WORKDIR /
USER 10001:10001
VOLUME /data
EXPOSE 9620

# `ready` and not only alive: the exit code is 1 while the record cannot be written and while it drains.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["tappass", "healthcheck"]

# The gateway is process 1 and handles SIGTERM itself; it needs up to 10 seconds to end its streams and its record.
ENTRYPOINT ["tappass"]
CMD ["serve"]

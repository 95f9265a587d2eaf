# Firn's images for those who have Docker: `docker build --target operator .` and `--target builder`.
# The files are those of `make images` (the same program collects them); how a container starts is
# said here again, and a test compares it with e2e/images.json. See docs/images.md.

FROM docker.io/library/rust:1.95-trixie AS files
WORKDIR /src
COPY . .
RUN cargo run --locked --package firn-e2e --bin firn-images -- tree --out /out

FROM scratch AS operator
COPY --from=files /out/operator/ /
USER 65532:65532
WORKDIR /
ENV GIT_EXEC_PATH=/usr/lib/git-core
ENV PATH=/usr/bin:/bin
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
LABEL dev.firn.contract=1
LABEL dev.firn.image=operator
LABEL org.opencontainers.image.licenses=Apache-2.0
LABEL org.opencontainers.image.title="Firn operator"
LABEL org.opencontainers.image.version=0.1.0
ENTRYPOINT ["/usr/bin/firn-operator"]

FROM scratch AS builder
COPY --from=files /out/builder/ /
USER 65100:65100
WORKDIR /
ENV GIT_EXEC_PATH=/usr/lib/git-core
ENV NIX_CONF_DIR=/etc/nix
ENV PATH=/usr/bin:/bin
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
LABEL dev.firn.contract=1
LABEL dev.firn.image=builder
LABEL org.opencontainers.image.licenses=Apache-2.0
LABEL org.opencontainers.image.title="Firn builder"
LABEL org.opencontainers.image.version=0.1.0
ENTRYPOINT ["/usr/bin/firn-streamer"]

# One static binary in an otherwise empty image:
#   docker build -t sordini . && docker run -p 9092:9092 -v sordini:/data sordini
FROM rust:1.95-alpine AS build
RUN apk add --no-cache musl-dev gcc make
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
# The manifest names these benches and tests, and cargo refuses it without their files.
COPY benches benches
COPY compat-tests compat-tests
# Alpine's target links musl statically; the empty data directory becomes the image's volume.
RUN cargo build --release --locked --bin sordini \
 && mkdir -p /out/data \
 && mv target/release/sordini /out/sordini

FROM scratch
COPY --from=build /out/ /
# Clients are told this name after their first request: set the host's name where they are elsewhere.
ENV KAFKA_LISTENERS=PLAINTEXT://0.0.0.0:9092 \
    KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://localhost:9092 \
    KAFKA_HTTP_LISTENER=0.0.0.0:9644 \
    KAFKA_LOG_DIRS=/data
EXPOSE 9092 9644
VOLUME /data
STOPSIGNAL SIGTERM
ENTRYPOINT ["/sordini", "serve"]

# Postern in an image that has nothing else: no shell, no package manager, no root.
#
#   docker build -t postern --build-arg VERSION=$(git describe --tags --always) .
#   docker run -v postern:/var/lib/postern -p 443:443 -p 80:80 -p 51820:51820/udp \
#       postern up --domain apps.example.com
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unknown
# SQLite is C; linked in, so that the image needs no C library.
RUN CGO_ENABLED=1 go build -trimpath -buildvcs=false \
        -tags urfave_cli_no_docs,netgo,osusergo,sqlite_omit_load_extension \
        -ldflags "-s -w -X main.version=$VERSION -linkmode external -extldflags -static" \
        -o /out/root/usr/bin/postern ./cli/postern
# A directory for the data that belongs to the user below. The program does not.
RUN mkdir -p /out/own/var/lib/postern /out/own/tmp && chmod 0700 /out/own/var/lib/postern && chmod 1777 /out/own/tmp

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/root/ /
COPY --from=build --chown=65532:65532 /out/own/ /
USER 65532:65532
ENV POSTERN_DATA=/var/lib/postern
VOLUME /var/lib/postern
# Browsers, those that come without TLS, and the nodes' tunnels.
EXPOSE 443/tcp 80/tcp 51820/udp
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/postern"]
CMD ["--help"]

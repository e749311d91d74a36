# The image of a node: loden, the CNI plugins and the firewall programs on nothing else.
#
#   make image                                    # with what is on this machine
#   docker buildx build --platform linux/amd64,linux/arm64 -t loden .
#
# BASE and GOLANG may be any Debian 12 and anything that has Go in /usr/local/go; where no
# registry can be reached make them from a debootstrap and the Go on the machine, as
# deploy/image/build.sh does. The build needs no privilege (buildah, rootless BuildKit), and
# no emulation: every stage runs on the builder's own architecture, Go compiles for the
# target's, and the firewall programs are Debian's for the target.
ARG BASE=docker.io/library/debian:bookworm-slim
ARG GOLANG=docker.io/library/golang:1.26-bookworm

FROM --platform=${BUILDPLATFORM} ${GOLANG} AS golang

FROM --platform=${BUILDPLATFORM} ${BASE} AS firewall
ARG TARGETARCH
COPY deploy/image/install.sh deploy/image/collect.sh /
RUN sh /install.sh ${TARGETARCH} && sh /collect.sh /image ${TARGETARCH}

FROM --platform=${BUILDPLATFORM} ${BASE} AS build
COPY --from=golang /usr/local/go /usr/local/go
COPY --from=firewall /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
ARG TARGETARCH VERSION=dev GOPROXY SOURCE_DATE_EPOCH=0
ENV PATH=/usr/local/go/bin:/usr/bin:/bin CGO_ENABLED=0 GOARCH=${TARGETARCH} GOTOOLCHAIN=local
WORKDIR /src
COPY . .
RUN go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION}" -o /image/usr/bin/ ./cmd/loden ./cmd/loden-cni \
    && sh test/tools/cni/build.sh /image/usr/bin/cni
COPY --from=firewall /image/usr/share/loden/packages /packages
RUN mkdir -p /image/usr/share/loden /image/usr/share/licenses/loden && cp LICENSE* /image/usr/share/licenses/loden/ \
    && GOARCH= go build -o /sbom ./test/tools/sbom \
    && SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} /sbom -version "${VERSION}" -packages /packages /image/usr/bin/loden /image/usr/bin/loden-cni /image/usr/bin/cni/* \
       >/image/usr/share/loden/sbom.spdx.json

FROM scratch
COPY --from=firewall /image /
COPY --from=build /image /
ARG VERSION=dev REVISION=unknown
LABEL org.opencontainers.image.title="loden" \
      org.opencontainers.image.description="An encrypted, dual-stack pod network for Linux nodes" \
      org.opencontainers.image.source="https://github.com/loden-net/loden" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/usr/bin:/usr/sbin
# 0 well, 3 something is wrong, 4 nobody answers. A node that waits for etcd is not
# unhealthy before its start period is over.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["/usr/bin/loden", "status"]
ENTRYPOINT ["/usr/bin/loden"]
CMD ["run"]

# One image for the four apps and their migrations; its argument says which one runs: docker run posthorn gateway
#
# A release pins the base by digest as well:
#   docker build --build-arg NODE_DIGEST=@sha256:… --build-arg VERSION=… --build-arg REVISION="$(git rev-parse HEAD)" --sbom=true .
ARG NODE_VERSION=24.20
ARG NODE_DIGEST=

FROM node:${NODE_VERSION}-trixie-slim${NODE_DIGEST} AS build
WORKDIR /app
COPY package.json package-lock.json ./
# The install scripts belong to development tools.
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY nest-cli.json tsconfig.json tsconfig.build.json ./
COPY apps apps
COPY libs libs
COPY tools tools
RUN node tools/build.mjs

# Beside the build, and unchanged for as long as the lock file is. What is optional is a compiler, and a driver for
# another platform.
FROM node:${NODE_VERSION}-trixie-slim${NODE_DIGEST} AS dependencies
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --omit=optional --ignore-scripts --no-audit --no-fund

FROM node:${NODE_VERSION}-trixie-slim${NODE_DIGEST}
ARG VERSION=
ARG REVISION=
ARG NODE_VERSION
LABEL org.opencontainers.image.title=posthorn \
      org.opencontainers.image.description="A NATS-backed event bus, realtime gateway and notification service" \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION} \
      org.opencontainers.image.base.name=docker.io/library/node:${NODE_VERSION}-trixie-slim
ENV NODE_ENV=production PORT=8080
WORKDIR /app
# The lock file stays: with it a scanner lists what is inside.
COPY package.json package-lock.json LICENSE ./
COPY --from=dependencies /app/node_modules node_modules
COPY --from=build /app/dist dist
COPY docker/run.mjs docker/probe.mjs docker/
# The user "node" of the base image, as a number: only then can Kubernetes see that it is not root.
USER 1000:1000
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=6 CMD ["node", "docker/probe.mjs"]
# Node is process 1 and gets the signals itself: it drains on SIGTERM. Nothing is written to the file system.
ENTRYPOINT ["node", "--enable-source-maps", "docker/run.mjs"]
CMD ["gateway"]

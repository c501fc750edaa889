# The server, without PyTorch. Build from the repository's root:
#   docker build -f docker/service.Dockerfile -t lmtune-service:0.1.0 .
FROM python:3.11-slim-bookworm

RUN useradd --uid 10001 --create-home lmtune \
  && install -d -o lmtune -g lmtune /var/lib/lmtune /var/lib/lmtune-blobs
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY studies studies
COPY service service
COPY trainer trainer
RUN pip install --no-cache-dir '.[server,postgres,samplers]' --constraint constraints.txt

# LMTUNE_ALLOW_HTTP: put a TLS proxy before it; compose.yaml publishes it on the loopback only.
ENV LMTUNE_HOME=/var/lib/lmtune \
    LMTUNE_HOST=0.0.0.0 \
    LMTUNE_PORT=8080 \
    LMTUNE_ALLOW_HTTP=1 \
    LMTUNE_WORKERS=0
# By number: Kubernetes can tell then that it is not root.
USER 10001
WORKDIR /var/lib/lmtune
VOLUME /var/lib/lmtune
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['LMTUNE_PORT'] + '/readyz')"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["lmtune-server"]

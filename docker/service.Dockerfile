# The server, without PyTorch. Build from the repository's root:
#   docker build -f docker/service.Dockerfile -t lmtune-service .
FROM python:3.11-slim

RUN useradd --uid 10001 --create-home lmtune && install -d -o lmtune -g lmtune /var/lib/lmtune
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
USER lmtune
WORKDIR /var/lib/lmtune
VOLUME /var/lib/lmtune
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/readyz')"]
STOPSIGNAL SIGTERM
CMD ["lmtune-server"]

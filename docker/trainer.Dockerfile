# A worker, without the server's packages. Build from the repository's root:
#   docker build -f docker/trainer.Dockerfile -t lmtune-trainer .
# By default the CUDA build of PyTorch, which also runs on a CPU; for the CPU build alone add
#   --build-arg PIP_ARGS='--extra-index-url https://download.pytorch.org/whl/cpu'
FROM python:3.11-slim

ARG PIP_ARGS=""
RUN useradd --uid 10001 --create-home lmtune && install -d -o lmtune -g lmtune /var/lib/lmtune
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY studies studies
COPY service service
COPY trainer trainer
RUN pip install --no-cache-dir '.[worker]' --constraint constraints.txt ${PIP_ARGS}

ENV LMTUNE_HOME=/var/lib/lmtune
USER lmtune
WORKDIR /var/lib/lmtune
VOLUME /var/lib/lmtune
# SIGTERM: the trial checkpoints and is released; it needs up to one lease.
STOPSIGNAL SIGTERM
ENTRYPOINT ["lmtune-worker"]

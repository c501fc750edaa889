# A worker, without the server's packages. Build from the repository's root:
#   docker build -f docker/trainer.Dockerfile -t lmtune-trainer:0.1.0 .
# By default the CUDA build of PyTorch, which brings CUDA's libraries and also runs on a CPU; the
# driver is the host's, by the NVIDIA container toolkit. For the CPU build alone add
#   --build-arg PIP_ARGS='--extra-index-url https://download.pytorch.org/whl/cpu'
FROM python:3.11-slim-bookworm

ARG PIP_ARGS=""
RUN useradd --uid 10001 --create-home lmtune && install -d -o lmtune -g lmtune /var/lib/lmtune
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY studies studies
COPY service service
COPY trainer trainer
RUN pip install --no-cache-dir '.[worker]' --constraint constraints.txt ${PIP_ARGS}

ENV LMTUNE_HOME=/var/lib/lmtune \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001
WORKDIR /var/lib/lmtune
VOLUME /var/lib/lmtune
# A worker that hangs or is gone is told by its lease, which frees its trial; it serves no port.
HEALTHCHECK NONE
# SIGTERM: the trial checkpoints and is released; it needs up to one lease.
STOPSIGNAL SIGTERM
ENTRYPOINT ["lmtune-worker"]

# PartCraft for CUDA GPUs, or for a processor:
#   docker build --tag partcraft:cuda .
#   docker build --tag partcraft --build-arg TORCH_INDEX=<address> .
# The address is that of PyTorch's wheels for CPUs, on its page of how to install it. The wheels for Linux that come
# without it bring CUDA with them, and are five times as large.
# The demo is its check, on drawn creatures, with nothing to download:
#   docker run --rm partcraft
FROM python:3.11-slim-bookworm

# g++: of what train.compile writes. Its version is the base image's business.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

ARG TORCH_INDEX=""
WORKDIR /source
COPY constraints.txt ./
RUN pip install --no-cache-dir --constraint constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch
COPY . .
RUN pip install --no-cache-dir --constraint constraints.txt '.[app]'

# Whoever runs it, with --user or without, finds a name and a home.
RUN useradd --create-home --uid 1000 partcraft \
    && install --directory --mode=1777 /data /models /project /home/partcraft
ENV USER=partcraft HOME=/home/partcraft \
    PARTCRAFT_DATA=/data PARTCRAFT_ARTIFACTS=/data/mlartifacts MLFLOW_TRACKING_URI=sqlite:////data/mlflow.db \
    HF_HOME=/models
USER 1000
WORKDIR /project
RUN partcraft new .
VOLUME ["/data", "/models"]

ENTRYPOINT ["partcraft"]
CMD ["run"]

# PartCraft for a processor, or for CUDA GPUs:
#   docker build --tag partcraft .
#   docker build --tag partcraft:cuda --build-arg DEVICE=cuda .
# The demo is its check, on drawn creatures, with nothing to download:
#   docker run --rm partcraft
FROM python:3.11-slim-bookworm

# g++: of what train.compile writes. Its version is the base image's business.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

ARG DEVICE=cpu
WORKDIR /source
COPY constraints.txt ./
# PyTorch's wheels for Linux bring CUDA with them; those without are a fifth of their size, and kept elsewhere.
RUN if [ "$DEVICE" = cpu ]; then \
        pip install --no-cache-dir --constraint constraints.txt --index-url https://download.pytorch.org/whl/cpu torch; \
    fi
COPY . .
RUN pip install --no-cache-dir --constraint constraints.txt '.[app]'

# Whoever runs it, with --user or without, finds a name and a home.
RUN useradd --create-home --uid 1000 partcraft \
    && install --directory --mode=1777 /data /models /project /home/partcraft
ENV USER=partcraft HOME=/home/partcraft DO_NOT_TRACK=true \
    PARTCRAFT_DATA=/data PARTCRAFT_ARTIFACTS=/data/mlartifacts MLFLOW_TRACKING_URI=sqlite:////data/mlflow.db \
    HF_HOME=/models
USER 1000
WORKDIR /project
RUN partcraft new .
VOLUME ["/data", "/models"]

ENTRYPOINT ["partcraft"]
CMD ["run"]

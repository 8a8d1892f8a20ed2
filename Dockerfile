# docker build -t mm-gateway .                          for a CPU
# docker build -t mm-gateway --build-arg TORCH=cu130 .  for NVIDIA GPUs; run it with --gpus all
# docker run -p 8000:8000 -v models:/models mm-gateway
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
# Which of PyTorch's builds: cpu, or a CUDA version such as cu130.
ARG TORCH=cpu
# Extras of the package, with commas: bnb,search
ARG EXTRAS=""
WORKDIR /src
# The compiler for the kernels of 8-bit and 4-bit weights; it stays in this stage.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN python -m venv /venv
COPY constraints.txt ./
RUN /venv/bin/pip install --no-cache-dir --constraint constraints.txt \
    --index-url "https://download.pytorch.org/whl/${TORCH}" --extra-index-url https://pypi.org/simple torch
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY config config
COPY docs docs
COPY mm_gateway mm_gateway
RUN /venv/bin/pip install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]"

FROM python:${PYTHON}-slim
RUN useradd --create-home --uid 1000 gateway && mkdir /models && chown gateway /models
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH \
    HF_HOME=/models \
    MM_GATEWAY_HOST=0.0.0.0
USER 1000
WORKDIR /home/gateway
VOLUME /models
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ.get('MM_GATEWAY_PORT', 8000)}/health\", timeout=2)"]
ENTRYPOINT ["mm-gateway"]
CMD ["serve"]

# Three images: `serve` (a CPU, no torch), `serve-gpu` (vLLM, CUDA) and `train` (what makes and judges checkpoints).
#
#   docker build --target serve --tag corewrite:0.1.0 .
#
# Each is one virtual environment, /opt/corewrite, made in a stage of its own. At run time nothing is compiled or
# installed, nothing is written outside /tmp, and there is no need of a shell. Pin BASE by digest where you build:
# --build-arg BASE=python:3.11-slim-bookworm@sha256:...
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS base
ENV PATH=/opt/corewrite/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp

# pip and what lists the parts stay behind here: neither is in an image.
FROM base AS source
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    INSTALL="/opt/tools/bin/pip --python /opt/corewrite install" \
    LIST="/opt/tools/bin/cyclonedx-py environment /opt/corewrite/bin/python --output-file /opt/corewrite/sbom.cdx.json"
WORKDIR /src
RUN python3 -m venv /opt/tools && /opt/tools/bin/pip install cyclonedx-bom==7.5.0 \
 && python3 -m venv --without-pip /opt/corewrite
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY app app
COPY training training

FROM source AS serve-build
RUN $INSTALL --constraint requirements.lock ".[openai,redis,postgres,s3,gcs,signing,tracing]" && $LIST

# vLLM says itself which torch and which CUDA it needs, so the lock is not asked. ONNX Runtime's two builds are
# the same package: the one for GPUs takes the place of the other.
FROM source AS serve-gpu-build
ARG VLLM=vllm==0.25.1
ARG ONNXRUNTIME=onnxruntime-gpu==1.31.1
RUN $INSTALL $VLLM ".[openai,redis,postgres,s3,gcs,signing,tracing]" \
 && /opt/tools/bin/pip --python /opt/corewrite uninstall --yes onnxruntime \
 && $INSTALL $ONNXRUNTIME && $LIST

# torch has its own line: where an index offers a CPU build, naming the version alone is what finds it.
FROM source AS train-build
RUN $INSTALL --constraint requirements.lock torch \
 && $INSTALL --constraint requirements.lock ".[train,cluster,redis,postgres,s3,gcs,signing,tracing]" && $LIST

FROM base AS image
LABEL org.opencontainers.image.title="corewrite" \
      org.opencontainers.image.licenses="Apache-2.0" \
      io.corewrite.sbom="/opt/corewrite/sbom.cdx.json"
ENV REWRITE_HOST=0.0.0.0
USER 10001:10001
ENTRYPOINT ["corewrite"]

# KubeRay calls `ray` from login shells, which set PATH anew.
FROM image AS train
USER 0:0
RUN ln -s /opt/corewrite/bin/ray /opt/corewrite/bin/corewrite /usr/local/bin/
USER 10001:10001
COPY --from=train-build /opt/corewrite /opt/corewrite
CMD ["--help"]

# Triton compiles small kernels for the GPU that it finds, and wants a C compiler for that; the driver is the host's.
FROM image AS serve-gpu
USER 0:0
# Debian keeps one version of a package, so a pinned one would be gone with its next fix.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
USER 10001:10001
COPY --from=serve-gpu-build /opt/corewrite /opt/corewrite
ENV REWRITE_ENGINE=vllm REWRITE_RELEVANCE_PROVIDER=cuda \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=6s --start-period=300s CMD ["corewrite", "probe"]
CMD ["serve"]

FROM image AS serve
COPY --from=serve-build /opt/corewrite /opt/corewrite
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s CMD ["corewrite", "probe"]
CMD ["serve"]

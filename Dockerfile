# ibllm-tools on a CPU, as a user without rights, with pocket inside: it needs no network to answer.
#
#   docker build -t ibllm-tools .
#   docker run --rm -e IBLLM_API_KEY=choose-a-long-one -p 127.0.0.1:8000:8000 ibllm-tools
#   docker run --rm -v "$PWD:/data:ro" ibllm-tools ask "What is this?" dog.jpg
#
# On x86-64 the usual index has torch with CUDA, several GB. For the small CPU build give the address
# of PyTorch's CPU wheels: --build-arg TORCH_INDEX=...
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG TORCH_INDEX=""
ARG EXTRAS="agents,chat,mcp,serve"
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv /opt/ibllm
COPY constraints.txt ./
RUN /opt/ibllm/bin/pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' constraints.txt)"
COPY pyproject.toml README.md LICENSE ./
COPY ibllm_tools ibllm_tools
RUN /opt/ibllm/bin/pip install -c constraints.txt ".[${EXTRAS}]"

FROM python:${PYTHON}-slim
ENV PATH="/opt/ibllm/bin:$PATH" PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 10001 ibllm && install -d -o ibllm -g ibllm /data
COPY --from=build /opt/ibllm /opt/ibllm
USER ibllm
WORKDIR /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["ibllm"]
CMD ["serve", "--host", "0.0.0.0"]

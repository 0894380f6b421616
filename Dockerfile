# Three images: `api` (no torch), `worker` (the engine on CPU wheels) and `gpu` (the engine on CUDA wheels).
#   docker build --target api .
FROM python:3.11-slim AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 DEFT_HOME=/var/lib/deft
RUN useradd --uid 1000 --create-home deft && install -d -o deft -g deft -m 700 /var/lib/deft
WORKDIR /srv/deft
COPY constraints.txt ./

FROM base AS api
COPY . .
RUN pip install -c constraints.txt .
USER deft
EXPOSE 8000
CMD ["python", "-m", "uvicorn", "app.main:create_app", "--factory", "--host", "0.0.0.0", "--port", "8000", "--http", "h11", "--timeout-graceful-shutdown", "2", "--no-access-log"]

FROM base AS worker
RUN pip install -c constraints.txt torch --index-url https://download.pytorch.org/whl/cpu
COPY . .
RUN pip install -c constraints.txt '.[engine]'
USER deft
CMD ["python", "-m", "celery", "-A", "workers.celery_app", "worker", "--without-mingle", "--without-gossip", "-P", "threads", "-Q", "cpu", "-c", "2", "-n", "cpu@%h"]

FROM base AS gpu
RUN pip install -c constraints.txt torch
COPY . .
RUN pip install -c constraints.txt '.[engine]'
USER deft
CMD ["python", "-m", "celery", "-A", "workers.celery_app", "worker", "--without-mingle", "--without-gossip", "-P", "threads", "-Q", "gpu", "-c", "1", "-n", "gpu@%h"]

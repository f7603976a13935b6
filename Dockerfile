FROM python:3.11-slim AS build
COPY requirements-runtime.lock .
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes -r requirements-runtime.lock

FROM python:3.11-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin app
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
COPY --from=build /venv /venv
COPY manage.py celery_app.py flowerconfig.py ./
COPY flows flows
COPY gateway_project gateway_project
COPY services services
RUN python manage.py collectstatic --no-input
USER app
CMD ["uvicorn", "gateway_project.asgi:application", "--host", "0.0.0.0", "--port", "8000", \
     "--lifespan", "off", "--no-access-log", "--timeout-graceful-shutdown", "30"]

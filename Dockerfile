# docker build -t emubench . && docker run --rm -v "$PWD:/work" emubench doctor
FROM python:3.11-slim
RUN apt-get update -q && apt-get install -qy --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN pip install --no-cache-dir -c /src/constraints.txt /src
WORKDIR /work
ENTRYPOINT ["emubench"]

# onnxopt itself: docker run --rm -v "$PWD:/models" onnxopt run model.onnx --passes quantize
FROM python:3.12-slim
COPY . /src
# Kernels are compiled when they are first used, into a folder that every user may write to.
RUN pip install --no-cache-dir '/src[eval,openvino,report]' && rm -rf /src
ENV NUMBA_CACHE_DIR=/tmp/numba
WORKDIR /models
ENTRYPOINT ["onnxopt"]

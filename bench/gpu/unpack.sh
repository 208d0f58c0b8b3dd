#!/usr/bin/env bash
# Unpacks a carried vLLM on a bare CUDA host that has its torch.
# usage: unpack.sh PARTS SITE     PARTS: p0, p1, ... (one xz tar, split), and *.txz, which go before it
# Afterwards: PYTHONPATH=SITE/extra:SITE/vllm:SITE/gateway:docker:. python3 -m bench.gpu.prove ...
set -euo pipefail
parts=$1 site=$2
mkdir -p "$site/vllm" "$site/extra"
cat "$parts"/p[0-9] | tar -xJ -C "$site/vllm" & unpacking=$!
for extra in "$parts"/*.txz; do tar -xJf "$extra" -C "$site/extra"; done
wait $unpacking

#!/usr/bin/env bash
# Unpacks what pack.sh made, on the bare GPU host; *.txz beside the parts go before it.
# usage: unpack.sh PARTS SITE
# Afterwards: PYTHONPATH=SITE/extra:SITE/vllm:SITE/gateway:docker:. python3 -m bench.gpu.prove ...
set -euo pipefail
parts=$1 site=$2
mkdir -p "$site/vllm" "$site/extra"
cat "$parts"/p[0-9][0-9] | xz -T0 -dc | tar -x -C "$site/vllm" & unpacking=$!
for extra in "$parts"/*.txz; do [ ! -e "$extra" ] || tar -xJf "$extra" -C "$site/extra"; done
wait $unpacking
# NVIDIA's libraries of the host stand beside the NCCL that was packed.
host=$(cd / && python3 -c "import nvidia; print(list(nvidia.__path__)[0])")
for one in "$host"/*; do [ -e "$site/vllm/nvidia/${one##*/}" ] || ln -s "$one" "$site/vllm/nvidia/"; done
python3 -m compileall -q -j 0 "$site" >/dev/null || true   # some wheels hold files that are no Python of this version

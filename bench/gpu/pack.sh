#!/usr/bin/env bash
# Packs the vLLM and torch that a slug pins, with all they need, for a bare Hopper host without a network.
# usage: pack.sh SLUG PARTS [CACHE]     PARTS becomes p00, p01, ...: one xz tar of a site directory, split at PART_BYTES
#   (49000000). CACHE keeps the wheels, of other builds too. About seven minutes on two cores; unpack.sh is its other half.
# The host has Python 3.12, a CUDA 13 driver and toolkit, and NVIDIA's libraries, numpy, numba and OpenCV in its own
# site-packages: those are left out, and so is machine code for other GPUs (bench/gpu/slim.py), FlashAttention 2 (Hopper
# uses 3) and what no recipe needs. Every wheel is the lock's or the card's, by hash.
set -euo pipefail
cd "$(dirname "$0")/../.."
slug=$1 parts=$(realpath -m "$2") cache=$(realpath -m "${3:-$(mktemp -d)}") python=${PYTHON3:-.venv/bin/python}
mkdir -p "$parts" "$cache"
site=$(mktemp -d) wanted=$(mktemp -d); trap 'rm -rf "$site" "$wanted"' EXIT
platform=(--only-binary=:all: --python-version 3.12 --implementation cp --abi cp312 --abi abi3 --abi none --platform any --platform linux_x86_64)
for version in 1 2010 2014 _2_5 _2_12 _2_17 _2_18 _2_24 _2_26 _2_27 _2_28 _2_31 _2_34 _2_35; do platform+=(--platform "manylinux${version}_x86_64"); done

PYTHONPATH=docker "$python" -m bench.gpu.wanted "$slug" "$wanted"
fetch() { "$python" -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes "${platform[@]}" -d "$cache" -r "$1"; }
cat "$wanted"/*.txt > "$wanted/all"
if ! fetch "$wanted/all" 2>/dev/null; then   # some of the lock has no wheel for this host: each on its own, then
  for one in "$wanted"/*.txt; do
    fetch "$one" 2>"$one.said" ||
      { case $(basename "$one") in vllm.txt | torch.txt) cat "$one.said" >&2; exit 3 ;; esac; echo "pack: left out, no file for this host: $(head -c 60 "$one")" >&2; }
  done
fi

PYTHONPATH=docker "$python" -m bench.gpu.wanted "$slug" --of "$cache" > "$wanted/wheels"
while read -r wheel; do
  case $(basename "$wheel") in
    torch-*) without=('torch/bin/protoc*' 'torch/include/ATen/ops/*') ;;
    triton-*) without=('triton/plugins/*' 'triton/instrumentation/*' 'triton/FileCheck' 'triton/profiler/*' 'triton/_C/libproton.so'
      'triton/backends/nvidia/lib/cupti/*.a' 'triton/backends/nvidia/lib/cupti/libnvperf*' 'triton/backends/nvidia/bin/*blackwell' 'triton/backends/nvidia/bin/nvdisasm' 'triton/backends/nvidia/bin/cuobjdump') ;;
    vllm-*) without=('vllm/vllm-rs' 'vllm/_qutlass*' 'vllm/vllm_flash_attn/_vllm_fa2_C*') ;;
    *) without=() ;;
  esac
  unzip -q -o -d "$site" "$wheel" ${without[@]:+-x "${without[@]}"} || [ $? = 11 ]   # 11: a pattern that this version has no file for
done < "$wanted/wheels"
rm -rf "$site"/pycountry/locales "$site"/mistral_common/data/tekken*
find "$site"/torch/lib "$site"/nvidia/nccl "$site"/vllm -name '*.so*' -size +1M -print0 | xargs -0 "$python" -m bench.gpu.slim 90
tar -C "$site" -c . | xz -T0 -3 | split -b "${PART_BYTES:-49000000}" -d -a 2 - "$parts/p"
du -ch "$parts"/p?? | tail -1

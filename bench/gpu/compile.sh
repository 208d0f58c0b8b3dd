#!/usr/bin/env bash
# Makes SITE/gateway on a bare host: compiled as in its image, or its plain source where there is no compiler.
# usage: compile.sh WHEELS SITE     WHEELS: a folder with those of gateway/compile.lock for this host's Python
set -euo pipefail
cd "$(dirname "$0")/../.."
wheels=$(realpath "$1") site=$(realpath -m "$2")
python3 -m pip install -q --no-index --no-deps --no-compile --target "$site/compiler" "$wheels"/*.whl
PYTHONPATH="$site/compiler" python3 gateway/compile.py "$site/gateway" || { rm -rf "$site/gateway"; cp -r gateway/src "$site/gateway"; }

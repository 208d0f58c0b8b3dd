# Installs what the pinned vLLM needs, by hash. usage: locked.sh LOCK
set -eu
pip --cache-dir /var/cache/pip install --quiet --no-deps --require-hashes -r "$1"

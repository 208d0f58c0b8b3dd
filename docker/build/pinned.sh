# Installs the vLLM and the torch that a card pins, by hash, from pip's own index, VLLM_WHEEL_INDEX or /wheelhouse.
# usage: pinned.sh CARD, with pin.py beside this file. VLLM_REQUIREMENT, a full requirement with its hash, replaces the card's vLLM.
set -eu
pins=$(mktemp)
python3 "${0%/*}/pin.py" --vllm "${VLLM_REQUIREMENT:-}" --index "${VLLM_WHEEL_INDEX:-}" "$1" > "$pins"
pip --cache-dir /var/cache/pip install --quiet --no-deps --require-hashes --only-binary=:all: --find-links /wheelhouse -r "$pins"
rm "$pins"
pip check

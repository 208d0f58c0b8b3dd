# What every image for GPUs adds to its base: a C++ compiler and Python's headers (Triton and FlashInfer compile kernels
# when vLLM starts), the user that workers run as, its two folders that are volumes, and an environment for Python.
set -eu
apt-get update
DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends g++ libnuma1 python3 python3-dev python3-venv
rm -rf /var/lib/apt/lists/*
groupadd --gid 10001 octet
useradd --uid 10001 --gid octet --no-create-home --home-dir /tmp octet
install --directory --owner octet --group octet /cache /gpu-slots
python3 -m venv /opt/venv

# Where the base has no CUDA toolkit (Debian's has none): makes /usr/local/cuda, where the compilers of kernels look for
# it, of the parts that pip has installed. libcuda comes with the driver; to link against it a name is enough.
set -eu
[ ! -e /usr/local/cuda ] || exit 0
parts=$(python3 -c "import sysconfig; print(sysconfig.get_path('purelib'))")/nvidia/cu13
[ -x "$parts/bin/nvcc" ] || { echo "cuda-home: no nvcc in $parts, where the lock should have put it" >&2; exit 1; }
mkdir -p /usr/local/cuda/lib64/stubs
ln -s "$parts/bin" "$parts/include" "$parts/nvvm" /usr/local/cuda/
for library in "$parts"/lib/lib*; do
    name=${library##*/}
    ln -s "$library" "/usr/local/cuda/lib64/$name"
    [ "${name%.so.*}" = "$name" ] || ln -sf "$library" "/usr/local/cuda/lib64/${name%.so.*}.so"
done
echo | g++ -shared -x c++ - -Wl,-soname,libcuda.so.1 -o /usr/local/cuda/lib64/stubs/libcuda.so

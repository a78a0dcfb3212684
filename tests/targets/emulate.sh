#!/bin/sh
# Put into FOLDER what runs ONNX Runtime as on other machines: qemu for x86 without VNNI, and `python`, an arm64 Python
# 3.11 with numpy and ONNX Runtime 1.23.0 (1.31 crashes under qemu 7.2). For Debian 12; no root needed.
# Usage: emulate.sh FOLDER, then pytest --slow --emulate FOLDER tests/targets/test_ort_emulated.py
set -eu
mkdir -p "$1/debs/lists/partial" "$1/debs/cache/archives/partial" "$1/qemu" "$1/sysroot" "$1/wheels" "$1/site"
folder=$(cd "$1" && pwd)
pip="${PYTHON:-python3} -m pip"

cd "$folder/debs"
apt-get download qemu-user-static
dpkg -x qemu-user-static_*.deb "$folder/qemu"
rm qemu-user-static_*.deb
arm="-o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o Dir::State::lists=$folder/debs/lists
    -o Dir::Cache=$folder/debs/cache -o Dir::State::status=/dev/null"
apt-get $arm update
apt-get $arm download python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 libgcc-s1 libstdc++6 \
    zlib1g libexpat1 libffi8 libssl3 libbz2-1.0 liblzma5 libuuid1 libcrypt1
for deb in *.deb; do dpkg -x "$deb" "$folder/sysroot"; done

$pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 --dest "$folder/wheels" \
    --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 onnxruntime==1.23.0 numpy==2.2.6
for wheel in "$folder"/wheels/*.whl; do ${PYTHON:-python3} -m zipfile -e "$wheel" "$folder/site"; done

cat > "$folder/python" <<END
#!/bin/sh
exec env -i PYTHONPATH="$folder/site" PYTHONNOUSERSITE=1 \\
    "$folder/qemu/usr/bin/qemu-aarch64-static" -L "$folder/sysroot" "$folder/sysroot/usr/bin/python3.11" "\$@"
END
chmod +x "$folder/python"
"$folder/python" -c "import onnxruntime; print('ONNX Runtime', onnxruntime.__version__, 'on arm64')"

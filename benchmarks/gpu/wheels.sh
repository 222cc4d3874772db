#!/usr/bin/env bash
# Collects the wheels that a machine with PyTorch and transformers, but no package index, lacks for the GPU check.
#
#     benchmarks/gpu/wheels.sh     47 MB into benchmarks/gpu/wheels/ (not in git); run.sh installs them on the other side
#
# They are for Python 3.12 on x86-64 Linux, whatever runs here; the versions are those of the requirements files.
# qwen-vl-utils is left out: nothing here imports it, and it needs 35 MB of PyAV.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=benchmarks/gpu/wheels
python=${PYTHON:-python3}
[ -x .venv/bin/python ] && python=${PYTHON:-.venv/bin/python}

packages=(
  tyro docstring-parser typeguard                # the command lines
  simplejpeg tenacity protego chompjs beautifulsoup4 soupsieve
  peft bitsandbytes                              # LoRA, 8-bit and 4-bit weights, 8-bit AdamW
  trl datasets "dill<0.4.2" "multiprocess<0.70.20"   # the SFTTrainer to compare with; the limits are those of datasets
)
platforms=()
for glibc in 28 27 24 17; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
platforms+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)

rm -rf "$folder" && mkdir -p "$folder"
# Constraints take no extras and no nested files.
pins=$(mktemp) && trap 'rm -f "$pins"' EXIT
grep -hE '^[A-Za-z0-9_.-]+==' requirements.txt requirements-dev.txt >"$pins"
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.12 \
  --implementation cp --abi cp312 --abi abi3 --abi none "${platforms[@]}" --constraint "$pins" --dest "$folder" "${packages[@]}"
du -sh "$folder"
if [ "$(du -sm "$folder" | cut -f1)" -gt 60 ]; then
  echo "more than 60 MB: too much to carry along" >&2
  exit 1
fi

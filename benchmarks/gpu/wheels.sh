#!/usr/bin/env bash
# Collect the wheels of the GPU check for a machine with PyTorch and transformers but without a package index.
#
#     benchmarks/gpu/wheels.sh     47 MB into benchmarks/gpu/wheels/ (not in git); run.sh installs them on the GPU machine
#
# For Python 3.12 on x86-64 Linux, independent of this machine; versions are those of the requirements files.
# Without qwen-vl-utils, which the check does not import and which needs 35 MB of PyAV.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=benchmarks/gpu/wheels
python=${PYTHON:-python3}
[ -x .venv/bin/python ] && python=${PYTHON:-.venv/bin/python}

# Pure Python or small, downloaded with what they need.
small=(tyro pydantic json-repair anls-star)
# Their needs come with torch and transformers.
alone=(
  simplejpeg peft lion-pytorch
  bitsandbytes                                   # 8-bit and 4-bit weights, 8-bit AdamW
  trl datasets "dill<0.4.2" "multiprocess<0.70.20"   # SFTTrainer, for comparison; the limits are those of datasets
)
platforms=()
for glibc in 28 27 24 17; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
platforms+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)

rm -rf "$folder" && mkdir -p "$folder"
# Constraint files may hold neither extras nor nested files.
pins=$(mktemp) && trap 'rm -f "$pins"' EXIT
grep -hE '^[A-Za-z0-9_.-]+==' requirements.txt requirements-dev.txt >"$pins"
download() {
  "$python" -m pip download --quiet --disable-pip-version-check --only-binary=:all: --python-version 3.12 \
    --implementation cp --abi cp312 --abi abi3 --abi none "${platforms[@]}" --constraint "$pins" --dest "$folder" "$@"
}
download "${small[@]}"
download --no-deps "${alone[@]}"
du -sh "$folder"
if [ "$(du -sm "$folder" | cut -f1)" -gt 60 ]; then
  echo "more than 60 MB: too large to copy to the GPU machine" >&2
  exit 1
fi

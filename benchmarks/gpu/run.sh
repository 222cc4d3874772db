#!/usr/bin/env bash
# All measurements that need a GPU: under 10 minutes on an H100, without a network or a download.
#
#     benchmarks/gpu/wheels.sh        first, on a machine with a package index, if the GPU machine has none
#     benchmarks/gpu/run.sh           into $OUT, else benchmarks/results/gpu/
#     benchmarks/gpu/run.sh --tiny    the embedded model, also on a CPU: tests the script only
#
# Steps are ordered by importance. Each writes its results as it goes and has a time limit; a failing step stops no
# other. All of them have $BUDGET_S seconds (570): a step that no longer fits gets what is left, or is skipped.
# Output: environment, finetune_speed, profile, tests, evaluation_speed and profile_compiled.json, steps.jsonl (how
# each step ended), run.log. Then table.py prints them as Markdown. Exit code: 0, or 1 if a step failed or was skipped,
# or 2 without a GPU or a module.
# Needs Python 3.11 or newer ($PYTHON, .venv's, or python3) with the modules below.
set -uo pipefail
case "${OUT:-}" in "" | /*) ;; *) OUT=$PWD/$OUT ;; esac
cd "$(dirname "$0")/../.."

# What the steps import (tests/test_gpu_check.py compares this with the code). Without the optional ones, the tests of
# 8-bit and 4-bit weights and the row of SFTTrainer are missing.
modules=(
  torch torchvision transformers accelerate safetensors huggingface_hub numpy scipy PIL cv2 matplotlib requests fsspec
  tqdm pytest tyro pydantic json_repair anls_star simplejpeg peft lion_pytorch
)
optional=(bitsandbytes trl datasets pyarrow)

tiny=
case "${1:-}" in
  --tiny) tiny=1 ;;
  "") ;;
  *) echo "usage: $0 [--tiny]" >&2; exit 2 ;;
esac
python=${PYTHON:-python3}
[ -z "${PYTHON:-}" ] && [ -x .venv/bin/python ] && python=.venv/bin/python
out=${OUT:-benchmarks/results/gpu${tiny:+_tiny}}
mkdir -p "$out" || exit 2
rm -f "$out"/{environment,finetune_speed,profile,tests,evaluation_speed,profile_compiled}.json "$out"/{steps.jsonl,run.log}
export HF_HUB_OFFLINE=1 WANDB_MODE=disabled TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
n_failed=0
# A busy CPU is slower than any GPU.
slowness=${tiny:+5}
budget_s=$((${BUDGET_S:-570} * ${slowness:-1}))
shortest_step_s=10

# step NAME LIMIT_S COMMAND...
step() {
  local name=$1 limit=$(($2 * ${slowness:-1})) left=$((budget_s - SECONDS)) start=$EPOCHREALTIME code=null seconds
  shift 2
  [ "$limit" -le "$left" ] || limit=$left
  if [ "$limit" -ge "$shortest_step_s" ]; then
    printf '\n== %s\n' "$name" >>"$out/run.log"
    timeout --kill-after=5 "$limit" "$@" >>"$out/run.log" 2>&1 </dev/null
    code=$?
  fi
  seconds=$(awk "BEGIN {printf \"%.1f\", $EPOCHREALTIME - $start}")
  echo "{\"step\": \"$name\", \"exit_code\": $code, \"seconds\": $seconds, \"limit_s\": $limit}" >>"$out/steps.jsonl"
  case $code in
    null) echo "$name: skipped, $left s are left" ;;
    124 | 137) echo "$name: stopped after its limit of $limit s" ;;
    *) echo "$name: exit code $code after $seconds s (limit $limit)" ;;
  esac
  [ "$code" = 0 ] || n_failed=$((n_failed + 1))
}

# missing MODULE...: those that cannot be found
missing() {
  "$python" -c 'import sys; from importlib.util import find_spec; print(*(m for m in sys.argv[1:] if not find_spec(m)))' "$@"
}

if [ -n "$tiny" ]; then
  export GPU_TESTS_ON_CPU=1
  training=(--tiny --batch-size 1 --max-batch-size 2 --n-steps 1)
  evaluation=(--shape tiny --n-images 2 --n-reference 1 --batch-size 2)
  profiling=(--tiny --batch-sizes 2 --n-steps 2)
  compiling=("${profiling[@]}")
elif "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  # The memory of a desktop card, in which the largest batch is searched.
  training=(--cap-gb 16 --batch-size 4 --max-batch-size 64 --n-steps 3 --timeout-s 45)
  evaluation=(--n-images 64 --n-reference 16 --batch-size 16)
  profiling=()
  compiling=(--batch-sizes 16)
else
  echo "no CUDA device is visible to $python; --tiny tests the script without one" >&2
  exit 2
fi

# Missing modules are installed from the wheels, ahead of the installed ones on the path.
if [ -n "$(missing "${modules[@]}" "${optional[@]}")" ] && compgen -G "benchmarks/gpu/wheels/*.whl" >/dev/null; then
  site=$(mktemp -d) && trap 'rm -rf "$site"' EXIT
  step wheels 60 "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile \
    --no-cache-dir --target "$site" benchmarks/gpu/wheels/*.whl
  export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi
absent=$(missing "${modules[@]}")
if [ -n "$absent" ]; then
  echo "missing for $python: $absent; benchmarks/gpu/wheels.sh collects wheels on a machine with a package index" >&2
  exit 2
fi
absent=$(missing "${optional[@]}")
[ -z "$absent" ] || echo "without the optional $absent"

step environment 30 "$python" benchmarks/gpu/environment.py "$out"
step finetune_speed 190 "$python" benchmarks/finetune_speed.py "${training[@]}" --largest-batch \
  --variants ours_cached,reference,trainer,ours,sft_trainer --out "$out/finetune_speed.json"
step profile 90 "$python" benchmarks/gpu/profile_steps.py "$out" "${profiling[@]}"
step tests 120 "$python" benchmarks/gpu/checks.py "$out"
step evaluation_speed 75 "$python" benchmarks/evaluation_speed.py "${evaluation[@]}" --out "$out/evaluation_speed.json"
step profile_compiled 110 "$python" benchmarks/gpu/profile_steps.py "$out" "${compiling[@]}" \
  --variants compiled --name profile_compiled

"$python" benchmarks/gpu/table.py "$out"
[ "$n_failed" = 0 ]

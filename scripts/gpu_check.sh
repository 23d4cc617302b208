#!/usr/bin/env bash
# Ray tracing, a small build, pretraining in bf16 and evaluation on a GPU, in at most 8 minutes; one JSON with all figures.
#
#   scripts/gpu_check.sh OUT.json          on a machine with a GPU
#   scripts/gpu_check.sh OUT.json cpu      the same steps on the CPU, to try the script, with more time
#
# PYTHON names an interpreter with wavecity[all] installed (default: .venv/bin/python). Nothing is downloaded. A step that
# fails or takes too long is noted with the end of its output, the others go on, and the exit code is 1.
set -uo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { sed -n '2,8p' "$0" >&2; exit 2; }

OUT=$(realpath -m "$1")
KIND=${2:-gpu}
PYTHON=${PYTHON:-.venv/bin/python}
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
case $KIND in
  gpu) PRECISION=bf16-mixed RAYS=1000000 USERS=400 LONGEST=230 ;;
  cpu) PRECISION=bf16-mixed RAYS=100000 USERS=60 LONGEST=1200; export CUDA_VISIBLE_DEVICES= ;;
  *) echo "$0: $KIND: gpu or cpu" >&2; exit 2 ;;
esac
failed=0

# step NAME SECONDS COMMAND...: run it, and keep its time, exit code, last lines, and the JSON that it wrote.
step() {
  local name=$1 limit=$2 start=$SECONDS code=0
  shift 2
  echo "== $name" >&2
  timeout --signal INT --kill-after 10 "$limit" "$@" >"$WORK/$name.log" 2>&1 || code=$?
  [ $code = 0 ] || { failed=1; echo "   failed with $code" >&2; tail -n 3 "$WORK/$name.log" >&2; }
  printf '%s %s %s\n' "$name" $((SECONDS - start)) "$code" >>"$WORK/steps"
}

wavecity() { "$PYTHON" -m wavecity.flows.cli "$@"; }
export -f wavecity
export PYTHON PREFECT_LOGGING_LEVEL=WARNING

step device 60 "$PYTHON" - "$WORK/device.json" <<'PY'
import json, sys
import torch
from wavecity.raytrace.backend import prepare
found = prepare()
gpu = torch.cuda.is_available()
facts = {"variant": found.variant, "torch": torch.__version__, "gpu": torch.cuda.get_device_name() if gpu else None}
json.dump(facts, open(sys.argv[1], "w"))
PY
step raytrace 170 bash -c "wavecity bench raytrace --scenes 2 --rays $RAYS --users $USERS --diffraction --json '$WORK/raytrace.json'"
step run "$LONGEST" bash -c "wavecity run quickstart-paper --out '$WORK/run' --workers 1 --set training.accelerator=$KIND \
  --set training.precision=$PRECISION --set training.threads=0 --set solver.rays=$RAYS --set solver.diffraction=true"
cp "$WORK/run/pretrain.json" "$WORK/run.json" 2>/dev/null

"$PYTHON" - "$WORK" "$OUT" "$KIND" <<'PY'
import json, sys
from pathlib import Path
work, out, kind = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
steps = {}
for line in (work / "steps").read_text().splitlines():
    name, seconds, code = line.split()
    found = work / f"{name}.json"
    result = json.loads(found.read_text()) if found.is_file() else None
    steps[name] = {"seconds": int(seconds), "exit_code": int(code), "result": result}
    if code != "0":
        steps[name]["output"] = (work / f"{name}.log").read_text(errors="replace").splitlines()[-20:]
out.parent.mkdir(parents=True, exist_ok=True)
out.write_text(json.dumps({"kind": kind, "seconds": sum(s["seconds"] for s in steps.values()), "steps": steps}, indent=1))
print(f"wrote {out}")
PY
exit $failed

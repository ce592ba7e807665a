#!/usr/bin/env bash
# Compresses the CIFAR-10 ResNet-20 by each method to the same share of the weights and
# fine-tunes it, at two rates, on the 4000 training images of data_batch_1.bin:
#
#	go build -o /tmp/lowrank ./cmd/lowrank
#	bash bench/cifar/finetune.sh /tmp/lowrank CHECKPOINT CIFAR_DIR > bench/cifar/finetune.jsonl
#
# A line for each run: the test images are the first 1000.
set -euo pipefail
lowrank=$1 checkpoint=$2 data=$3
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
for ratio in 0.3 0.15; do
	for method in "cp none" "cp epc=1.02" "cp epc=1.1" "tucker none" "tkdcpd epc=1.02"; do
		set -- $method
		rates="0.01 0.05"
		if [ "$1 $ratio" = "cp 0.3" ] && [ "$2" != epc=1.1 ]; then
			rates="0.001 $rates"
		fi
		for rate in $rates; do
			"$lowrank" compress "$checkpoint" --method "$1" --stability "$2" --rank "ratio=$ratio" --data "cifar10:$data" \
				--finetune 5 --lr "$rate" --teaching 0 -o "$out/small.safetensors" --force --json 2>/dev/null >"$out/report.json" || {
				printf '{"method":"%s","stability":"%s","ratio":%s,"rate":%s,"failed":true}\n' "$1" "$2" "$ratio" "$rate"
				continue
			}
			python3 -c '
import json, statistics, sys
r = json.load(open(sys.argv[1]))
layers = [l for l in r["layers"] if l["method"] != "none"]
print(json.dumps({
    "method": sys.argv[2], "stability": sys.argv[3], "ratio": float(sys.argv[4]), "rate": float(sys.argv[5]),
    "params": r["params_after"], "macs": r["macs_after"],
    "error": round(statistics.median(l["rel_error"] for l in layers), 4),
    "sensitivity": round(statistics.median(l["sensitivity_after"] for l in layers)),
    "compressed": r["accuracy_compressed"], "after": r["accuracy_after"],
    "losses": [round(e["loss"], 4) for e in r["finetuning"]]}))' "$out/report.json" "$1" "$2" "$ratio" "$rate"
		done
	done
done

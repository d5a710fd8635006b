#!/usr/bin/env bash
# All measurements that need a GPU, in under 8 minutes on one card: utilisation, step and latency beside the bare encoder, trainings.
#     MODEL=FOLDER DATA=FOLDER OUT=FOLDER [PARTS="utilisation timed trainings tests"] experiments/gpu/all.sh [--dry-run]
# MODEL is a small encoder (half precision will do), DATA holds clinc150/ and goemotions/, OUT gets logs and tables.
# --dry-run does all of it on the CPU, as little of each as shows that it works.
set -uo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
export PYTHONPATH=$PWD HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
mkdir -p "$OUT"
if [ "${1:-}" = --dry-run ]; then
    utilisation="--device cpu --layers 2 --width 128 --length 64 --batch-size 2 --steps 1 --matrix 256"
    step="--device cpu --batches 2" latency="--device cpu --shapes 6x384 --lengths 128 --rounds 1"
    training="trainer=cpu trainer.limit_train_batches=2 trainer.limit_val_batches=1 trainer.limit_test_batches=1" seeds=0 workers=2
else
    utilisation="" step="--device cuda --precision bf16 --batch-size 32 --batches 40"
    latency="--device cuda --lengths 128 512 --batch-sizes 1 64 --rounds 30"
    training="trainer=gpu impl=gpu impl.num_workers=1" seeds="0 1 2" workers=14
fi
failed=0
log() { # NAME COMMAND...: run it, keep its output in OUT/NAME.log
    local name=$1 began=$SECONDS
    shift
    if "$@" > "$OUT/$name.log" 2>&1; then echo "$name: $((SECONDS - began)) s"; else
        echo "$name: FAILED after $((SECONDS - began)) s"; tail -n 15 "$OUT/$name.log"; failed=1; fi
}

parts=${PARTS:-utilisation timed trainings tests}
case $parts in *utilisation*)
log utilisation "$python" experiments/gpu/utilisation.py $utilisation --out "$OUT/utilisation.csv"
cat "$OUT/utilisation.csv"
esac

case $parts in *timed*) # alone on the card, as the one above
for data in clinc150 goemotions; do
    log "step-$data" "$python" experiments/throughput/step_time.py --backbone "$MODEL" --data "$DATA/$data" $step --out "$OUT/step.csv"
done
log latency "$python" experiments/latency/latency.py $latency --out "$OUT/latency.csv"
cat "$OUT/step.csv"
grep latency_over "$OUT/latency.csv"
esac

case $parts in *trainings*) # together: whole training sets, each system at the rate that the other experiments chose for this encoder
common="dataset=jsonl backbone=bert backbone.name=$MODEL optimizer.learning_rate=3e-4 callbacks.progress_bar=null $training"
common="$common cache_dir=$OUT/cache keep_checkpoints=false model.tune_threshold=level"
train() { # DATA NAME SEED ARGUMENT...
    local data=$1 name=$2 seed=$3
    shift 3
    log "train-$data-$name-$seed" "$python" run.py $common "dataset.path=$DATA/$data" "seed=$seed" "run.variant=$name" \
        "hydra.run.dir=$OUT/runs/$data-$name-$seed" "$@"
}
for seed in $seeds; do
    train clinc150 ptmt "$seed" trainer.max_epochs=6 &
    train clinc150 ptmt_cross_entropy "$seed" loss=cross_entropy model.tune_threshold=null trainer.max_epochs=6 &
    train clinc150 bert_bce "$seed" model=bert loss=bce trainer.max_epochs=6 &
    train goemotions ptmt "$seed" trainer.max_epochs=2 &
    train goemotions bert_bce "$seed" model=bert loss=bce trainer.max_epochs=2 &
done
wait
"$python" -m ptmt_lightning.cli report "$OUT/runs" --metrics h_f1_macro,h_f1_micro,h_auprc --format csv > "$OUT/trainings.csv"
cat "$OUT/trainings.csv"
esac

case $parts in *tests*)
log tests "$python" -m pytest -n "$workers" -m "not slow" tests
tail -n 40 "$OUT/tests.log"
esac
exit "$failed"

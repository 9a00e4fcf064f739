#!/usr/bin/env bash
# The bundled checkpoint ko-mini: corpus, training, evaluation, fine-tuning rates. About an hour on one core.
#
#   bash experiments/bundled/ko-mini.sh TEXTS DATA
#
# TEXTS holds ko_wikipedia.txt.xz: Korean Wikipedia as plain text, documents separated by a line <|endoftext|>
# (CC BY-SA). DATA holds the sets that Korean models are evaluated on, a folder each: nsmc, kornli, korquad,
# question_pair.
set -euo pipefail
texts=$1 data=$2
python=${PYTHON:-python}
export OMP_NUM_THREADS=1  # deterministic for a given number of threads; two runs fill two cores better than one does

$python build_corpus.py --input "$texts/ko_wikipedia.txt.xz" \
    --exclude "$data/nsmc/ratings_test.txt" "$data"/kornli/*.tsv "$data"/korquad/*.json "$data"/question_pair/*test.csv \
    --output-dir corpora/ko-8k --vocab-type unigram --vocab-size 8192
$python pretrain.py --corpus corpora/ko-8k --size mini --lr 3e-3 --time-budget 57m --eval-every 500 --sample-prompt 영화 \
    --save-dtype bf16
best=$(ls -d runs/pretrain-ko-8k-mini-scratch-*/best | tail -n 1)
$python evaluate_lm.py --model "$best" --corpus corpora/ko-8k --split test
$python experiments/search_rates.py --dataset nsmc --data-dir "$data/nsmc" --model "$best" --limit 8000
# The folder becomes data/checkpoints/ko-mini; the rates found go into the block at the head of its README.md.

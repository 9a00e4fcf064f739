#!/usr/bin/env bash
# The bundled checkpoint mini: corpus, training, evaluation, fine-tuning rates. About three hours on two cores.
#
#   bash experiments/bundled/mini.sh TEXTS DATA
#
# TEXTS holds English text as .txt.xz files, documents separated by a line <|endoftext|>: en_wikipedia (prose of 2015,
# CC BY-SA), en_novels_eltec and en_novels_100 (public domain), en_film_reviews (the unlabelled part of the IMDB review
# set). DATA holds the sets that English models are evaluated on: the course's files in cs224n, Quora's pairs in qqp.
set -euo pipefail
texts=$1 data=$2
python=${PYTHON:-python}
export OMP_NUM_THREADS=1  # one thread for each of the two processes

$python build_corpus.py \
    --input "$texts"/en_{wikipedia,novels_eltec,novels_100}.txt.xz "$texts/en_film_reviews.txt.xz=2" \
    --exclude "$data"/cs224n/*sonnets_held_out*.txt "$data"/cs224n/ids-*-{dev,test-student}.csv "$data/qqp/quora-dev.csv" \
    --output-dir corpora/en-16k --vocab-type byte-level-bpe --vocab-size 16384
torchrun --nproc_per_node 2 pretrain.py --corpus corpora/en-16k --size mini --time-budget 74m --eval-every 500 \
    --sample-prompt "The film" --save-dtype bf16
first=$(ls -d runs/pretrain-en-16k-mini-scratch-*/best | tail -n 1)
$python pretrain.py --corpus corpora/en-16k --init-from "$first" --lr 1.5e-3 --batch-tokens 4096 --time-budget 27m \
    --eval-every 200 --sample-prompt "The film" --save-dtype bf16  # longer, from where it stopped
best=$(ls -d runs/pretrain-en-16k-mini-continued-*/best | tail -n 1)
$python evaluate_lm.py --model "$best" --corpus corpora/en-16k --split test
$python experiments/search_rates.py --dataset sst --data-dir "$data/cs224n" --model "$best" --limit 4000
$python experiments/search_rates.py --dataset cfimdb --data-dir "$data/cs224n" --model "$best" --limit 600
# The folder becomes data/checkpoints/mini; the rates found go into the block at the head of its README.md.

#!/usr/bin/env bash
# The bundled checkpoint mini: corpora, training, evaluation, fine-tuning rates. Three hours of training on two slow
# cores, and the search of the rates after it.
#
#   bash experiments/bundled/mini.sh TEXTS DATA
#
# TEXTS holds English text as .txt.xz files, documents separated by a line <|endoftext|>: en_wikipedia (prose of 2015,
# CC BY-SA), en_novels_eltec and en_novels_100 (public domain), en_film_reviews (the unlabelled part of the IMDB review
# set). DATA holds the sets that English models are evaluated on: the course's files in cs224n, Quora's pairs in qqp.
set -euo pipefail
texts=$1 data=$2
python=${PYTHON:-python}
export OMP_NUM_THREADS=1  # deterministic for a given number of threads
films=$texts/en_film_reviews.txt.xz
evaluated=("$data"/cs224n/*sonnets_held_out*.txt "$data"/cs224n/ids-*-{dev,test-student}.csv "$data/qqp/quora-dev.csv")

# A third film reviews, for the vocabulary; more than half of them, for the model.
$python build_corpus.py --input "$texts"/en_{wikipedia,novels_eltec,novels_100}.txt.xz "$films=2" \
    --exclude "${evaluated[@]}" --output-dir corpora/en-8k --vocab-type byte-level-bpe --vocab-size 8192
$python build_corpus.py --input "$texts/en_wikipedia.txt.xz=0.25" "$texts"/en_novels_{eltec,100}.txt.xz=0.15 "$films" \
    --exclude "${evaluated[@]}" --output-dir corpora/en-8k-film --tokenizer corpora/en-8k/tokenizer
torchrun --nproc_per_node 2 pretrain.py --corpus corpora/en-8k-film --size mini --max-tokens 16_000_000 --beta2 0.999 \
    --eval-every 500 --sample-prompt "The film" --save-dtype bf16
best=$(ls -d runs/pretrain-en-8k-film-mini-scratch-*/best | tail -n 1)
$python evaluate_lm.py --model "$best" --corpus corpora/en-8k-film --split test
sst=(--dataset sst --data-dir "$data/cs224n" --model "$best" --limit 4000)
cfimdb=(--dataset cfimdb --data-dir "$data/cs224n" --model "$best" --limit 600)
$python experiments/search_rates.py "${sst[@]}"
$python experiments/search_rates.py "${cfimdb[@]}"
# Where the best of five stood at the edge, around it.
$python experiments/search_rates.py "${sst[@]}" --strategies full --centre full=0.000125
$python experiments/search_rates.py "${cfimdb[@]}" --strategies full head --centre full=0.0005 head=0.000625
# The folder becomes data/checkpoints/mini; the rates found go into the block at the head of its README.md.

#!/bin/bash
# lm-evaluation-harness, unchanged, against `farskip serve` (its model local-completions: token ids, echo, logprobs): a small
# model trained here answers a set of questions with choices and one of minimal pairs. Accuracies must be those of
# `farskip eval`, and each log-probability within 1e-3 of ours. The package comes from PyPI.
# time limit: 2400
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
farskip=build/farskip
[ -x $farskip ] || { echo "make build comes first"; exit 77; }
python=.venv/bin/python
[ -x $python ] || { echo "the project's venv is not there (TORCH_DIR is set?)"; exit 77; }
# A venv on top of the project's, whose torch is thereby not fetched again.
peer=build-long/lm_eval
if [ ! -f $peer/complete ]; then
  $python -m venv --clear $peer
  $python -c 'import site; print(site.getsitepackages()[0])' >"$(echo $peer/lib/python*/site-packages)/project.pth"
  $peer/bin/python -m pip install --quiet 'lm_eval[api]==0.4.*' 'transformers<6' ||
    { echo "lm_eval cannot be fetched (no network?)"; exit 77; }
  touch $peer/complete
fi
. tests/long/served_model.sh
mkdir "$work/tasks"
train_tokenizer '<eos>'
echo '{"eos_token": "<eos>", "tokenizer_class": "PreTrainedTokenizerFast"}' >"$work/model/tokenizer_config.json"
train_small_model 80
$python - "$work" <<'PY'
import json, sys
work = sys.argv[1]
with open(work + "/choices.jsonl", "w") as choices, open(work + "/pairs.jsonl", "w") as pairs:
    for i in range(40):
        start = f"The quick fox number {i}"
        query = {"query": start + [" jumps", " jumps over", ""][i % 3], "gold": i % 3,
                 "choices": ["under the bed.", "over the lazy dog.", "the lazy dog."]}
        choices.write(json.dumps(query) + "\n")
        bad = [" over jumps the lazy dog.", " jumps over lazy the dog.", " jump over the lazy dog."][i % 3]
        pairs.write(json.dumps({"sentence_good": start + " jumps over the lazy dog.", "sentence_bad": start + bad}) + "\n")
common = "test_split: test\noutput_type: multiple_choice\nnum_fewshot: 0\n"
for name, rest in {
    "choices": 'doc_to_text: "{{query}}"\ndoc_to_choice: "{{choices}}"\ndoc_to_target: gold\n'
               'metric_list: [{metric: acc}, {metric: acc_norm}]\n',
    "pairs": 'doc_to_text: ""\ndoc_to_choice: "{{[sentence_good, sentence_bad]}}"\ndoc_to_target: 0\n'
             'target_delimiter: ""\nmetric_list: [{metric: acc}]\n',
}.items():
    with open(f"{work}/tasks/{name}.yaml", "w") as file:
        file.write(f"task: farskip_{name}\ndataset_path: json\n"
                   f"dataset_kwargs: {{data_files: {{test: {work}/{name}.jsonl}}}}\n" + common + rest)
PY
$farskip eval "$work/run" --tokenizer "$work/model" --pairs "$work/pairs.jsonl" --choices "$work/choices.jsonl" \
  -o "$work/ours.json" --samples "$work/ours.jsonl" 2>>"$work/log"
start_server --served-model-name small
for batch in 1 8; do
  rm -rf "$work/theirs"
  HF_HOME=$work/hf HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 $peer/bin/python -m lm_eval --model local-completions \
    --model_args "model=small,base_url=http://127.0.0.1:$port/v1/completions,tokenizer=$work/model,tokenizer_backend=huggingface,tokenized_requests=True,max_length=256,num_concurrent=4" \
    --include_path "$work/tasks" --tasks farskip_choices,farskip_pairs --batch_size $batch --output_path "$work/theirs" \
    --log_samples >>"$work/log" 2>&1
  $python - "$work" <<'PY'
import glob, json, sys
work = sys.argv[1]
ours = {task["name"]: task for task in json.load(open(work + "/ours.json"))["tasks"]}
values = {"choices": {}, "pairs": {}}
for line in open(work + "/ours.jsonl"):
    item = json.loads(line)
    values[item["task"]][item["item"]] = item["values"]
(results,) = glob.glob(work + "/theirs/**/results_*.json", recursive=True)
theirs = json.load(open(results))["results"]
worst = compared = 0
for name in ("choices", "pairs"):
    for metric in ("acc", "acc_norm") if name == "choices" else ("acc",):
        a, b = ours[name][metric], theirs["farskip_" + name][metric + ",none"]
        assert abs(a - b) < 1e-9, (name, metric, a, b)
        error = theirs["farskip_" + name][metric + "_stderr,none"]
        assert abs(ours[name][metric + "_stderr"] - error) < 1e-9, (name, metric, ours[name][metric + "_stderr"], error)
        print(f"{name} {metric}: {a:.4f} of both, standard error {error:.4f}")
    (samples,) = glob.glob(f"{work}/theirs/**/samples_farskip_{name}_*.jsonl", recursive=True)
    for line in open(samples):
        sample = json.loads(line)
        said = [float(response[0][0]) for response in sample["resps"]]
        for a, b in zip(values[name][sample["doc_id"]], said, strict=True):
            worst, compared = max(worst, abs(a - b)), compared + 1
assert compared == 40 * 5 and worst < 1e-3, (compared, worst)
print(f"{compared} log-probabilities differ by at most {worst:.1e}")
PY
done
stop_server
echo "lm-evaluation-harness and farskip eval agree"

#!/usr/bin/env python3
"""Converts two small models to FarSkip in several ways and compares what each way reaches at equal token budgets.

    bench/fcsd/corpus.sh CORPUS
    bench/fcsd/run.py CORPUS OUT [--models mla,gqa] [--budgets 0.01,0.03,0.1] [--workers 2] [--pairs BLIMP.jsonl]
        [--contenders paper,ours,ours+,sft] [--rates ours+@0.01=3e-4] [--stage teacher|sweep|seeds|plateau|report]

The models (bench/fcsd/mla: DeepSeek-V2-Lite's form, bench/fcsd/gqa: Qwen3-MoE's) are trained with standard connectivity on
the corpus first (teacher.yaml), then converted on every layer from the first MoE layer on. Whether they were near their
plateau is seen by going on: from the last checkpoint at the full rate to half as many steps again, the last fifth of them
with a falling rate as before (stage plateau).

What is fixed before any result is seen:
  budgets     0, 1, 3 and 10 % of the tokens that the teacher was trained on, in sequences of 256
  contenders  untrained    the connectivity alone
              calibrated   closed-form maps fitted on 131,072 tokens of text used for nothing else, no gradient
              paper        FCSD as published: forward KL on the logits, all weights, AdamW, 5 % warm-up, cosine
              ours         the maps, fitted on the first 131,072 of the same training tokens (or all, where they are
                           fewer), then the same, at half the learning rates
              sft          as paper, cross-entropy in place of KL: the control
  trials      for each budget the paper's recipe gets 3 learning rates with each of 2 batch sizes, ours 3 learning rates with
              the smaller, seed 1; the lowest KL on the validation part wins, and runs with seeds 1, 2, 3. sft takes
              rate and batch size of the paper's recipe
  batches     the largest power of two that leaves 500 steps, and half of it; one and two sequences where that is one
  reported    the first 131,072 tokens of the test part, on which nothing was chosen, and minimal pairs

Chosen afterwards, at 10 % (bench/results/2026-11-29-fcsd-end-point.md): ours+, which is ours with the embedding frozen, a
hidden term that falls to nothing and a little cross-entropy, at the recipe's 3 learning rates with the smaller batch.

A run is one thread, so that WORKERS of them go at a time; its model stays in OUT/models, its figures in OUT/runs, and what is
there is not run again. --stage report writes OUT/report.md, OUT/report.svg and, after the stage plateau, OUT/teachers.svg.
"""

import argparse
import concurrent.futures
import json
import math
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import chart

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SEQUENCE = 256
VALID_TOKENS = 65536
TEST_TOKENS = 131072
CALIBRATION_TOKENS = 131072
SEEDS = (1, 2, 3)
STAGES = ("teacher", "sweep", "seeds", "plateau", "report")
RATES = {"paper": (3e-4, 6e-4, 1.2e-3), "ours": (1.5e-4, 3e-4, 6e-4), "ours+": (3e-4, 6e-4, 1.2e-3)}
CALIBRATE = ["calibrate=true", "calibrate_tokens={calibration_tokens}"]
SETTINGS = {"paper": [], "ours": CALIBRATE,
            "ours+": [*CALIBRATE, "freeze=*embed_tokens*", "hidden_weight=3", "cross_entropy_weight=0.05"],
            "sft": ["cross_entropy_weight=1"]}


class Study:
    def __init__(self, arguments):
        self.corpus = arguments.corpus.resolve()
        self.out = arguments.out.resolve()
        self.farskip = arguments.farskip
        self.pairs = arguments.pairs
        self.contenders = arguments.contenders.split(",")
        self.budgets = [float(budget) for budget in arguments.budgets.split(",")]
        self.rates = {}
        for word in filter(None, arguments.rates.split(",")):
            where, rate = word.split("=")
            contender, budget = where.split("@")
            self.rates[contender, float(budget)] = (float(rate),)
        for folder in ("runs", "models"):
            (self.out / folder).mkdir(parents=True, exist_ok=True)

    def call(self, log, *command):
        environment = dict(os.environ, OMP_NUM_THREADS="1")
        with open(log, "a") as file:
            code = subprocess.run([str(c) for c in command], stdout=file, stderr=subprocess.STDOUT, env=environment).returncode
        if code != 0:
            sys.exit(f"{' '.join(map(str, command))}\nended with {code}: see {log}")

    def teacher(self, model):
        return self.out / f"teacher-{model}"

    def teacher_tokens(self, model):
        """Tokens that the teacher was trained on."""
        lines = [json.loads(line) for line in open(self.out / f"teacher-{model}.jsonl")]
        return max(line.get("consumed_samples", 0) for line in lines) * SEQUENCE

    def train(self, name, model, *settings):
        if (self.out / name).exists():
            return
        self.call(self.out / f"{name}.log", self.farskip, "train", HERE / "teacher.yaml", f"model={HERE / model}",
                  f"train_data_path={self.corpus}/train_text_document", f"valid_data_path={self.corpus}/valid_text_document",
                  f"save={self.out}/{name}.run", "auto_resume=true", f"export={self.out / name}",
                  f"log_file={self.out}/{name}.jsonl", f"report={self.out}/{name}.html", *settings)

    def train_teacher(self, model):
        self.train(f"teacher-{model}", model, "keep_checkpoints=0")

    def train_longer(self, model):
        """The teacher's run, half as long again."""
        lines = (HERE / "teacher.yaml").read_text().splitlines()
        setting = dict(line.split(": ") for line in lines if not line.startswith("#"))
        steps, decay = int(setting["train_iters"]), int(setting["lr_wsd_decay_iters"])
        checkpoint = f"iter_{steps - decay:07d}"
        begin = self.out / f"longer-{model}.begin"
        begin.mkdir(exist_ok=True)
        if not (begin / checkpoint).exists():
            (begin / checkpoint).symlink_to(self.out / f"teacher-{model}.run" / checkpoint)
        (begin / "latest_checkpointed_iteration.txt").write_text(f"{steps - decay}\n")
        self.train(f"longer-{model}", model, f"load={begin}", f"train_iters={steps * 3 // 2}",
                   f"lr_wsd_decay_iters={decay * 3 // 2}")

    def validation(self, name):
        """[(step, loss)] at the evaluations of a training run."""
        log = self.out / f"{name}.jsonl"
        lines = [json.loads(line) for line in open(log)] if log.exists() else []
        return [(line["iteration"], line["validation_loss"]) for line in lines if "validation_loss" in line]

    def figures(self, name, part):
        """What `farskip eval` says of the run `name` on one part, kept in runs/NAME.PART.json."""
        model = name.split("-")[0]
        kept = self.out / "runs" / f"{name}.{part}.json"
        if not kept.exists():
            command = [self.farskip, "eval", self.out / "models" / name, "--text", f"{part}={self.corpus}/{part}_text_document",
                       "--max-tokens", VALID_TOKENS if part == "valid" else TEST_TOKENS, "--window", SEQUENCE,
                       "--against", self.teacher(model), "-o", kept]
            if part == "test" and self.pairs:
                command += ["--tokenizer", self.corpus / "tokenizer", "--pairs", f"pairs={self.pairs}"]
            self.call(self.out / "runs" / f"{name}.log", *command)
        return {task["name"]: task for task in json.load(open(kept))["tasks"]}

    def run(self, name, make):
        """The name of the model that `make(folder, log)` writes into models/NAME, where it is not there."""
        folder = self.out / "models" / name
        if not folder.exists():
            begin = time.time()
            unfinished = folder.with_name(name + ".new")
            shutil.rmtree(unfinished, ignore_errors=True)
            make(unfinished, self.out / "runs" / f"{name}.log")
            unfinished.rename(folder)
            print(f"{name}: {time.time() - begin:.0f} s", flush=True)
        return name

    def untouched(self, model):
        return self.run(f"{model}-teacher", lambda folder, log: shutil.copytree(self.teacher(model), folder))

    def converted(self, model, calibrated):
        def make(folder, log):
            extra = ["--calibrate", f"{self.corpus}/calib_text_document", "--calibrate-tokens", CALIBRATION_TOKENS]
            extra = extra if calibrated else []
            self.call(log, self.farskip, "convert", self.teacher(model), folder, "--connectivity", self.connectivity(model), *extra)

        return self.run(f"{model}-{'calibrated' if calibrated else 'untrained'}", make)

    def connectivity(self, model):
        """FarSkip from the first MoE layer on."""
        config = json.load(open(HERE / model / "config.json"))
        return f"layers={config.get('first_k_dense_replace', 0)}-{config['num_hidden_layers'] - 1}"

    def batches(self, sequences):
        largest = 2 ** max(0, int(math.log2(max(1, sequences // 500))))
        return sorted({largest, max(1, largest // 2)} if largest > 1 else {1, 2})

    def distilled(self, model, contender, budget, rate, batch, seed):
        sequences = int(self.teacher_tokens(model) * budget) // SEQUENCE
        steps = sequences // batch
        name = f"{model}-{contender}-{budget:g}-lr{rate:g}-b{batch}-s{seed}"

        def make(folder, log):
            self.call(log, self.farskip, "distill", HERE / "student.yaml", f"teacher={self.teacher(model)}",
                      f"connectivity={self.connectivity(model)}", f"train_data_path={self.corpus}/train_text_document",
                      f"valid_data_path={self.corpus}/valid_text_document", f"train_iters={steps}", f"lr={rate}", f"seed={seed}",
                      f"global_batch_size={batch}", f"micro_batch_size={min(batch, 4)}", f"export={folder}",
                      f"result={self.out}/runs/{name}.json", *[setting.format(calibration_tokens=min(CALIBRATION_TOKENS, steps * batch * SEQUENCE))
                        for setting in SETTINGS[contender]])

        return self.run(name, make)

    def trials(self, model, contender, budget):
        batches = self.batches(int(self.teacher_tokens(model) * budget) // SEQUENCE)
        rates = self.rates.get((contender, budget), RATES[contender])
        return [(rate, batch) for rate in rates for batch in (batches if contender == "paper" else batches[:1])]

    def trial_kl(self, model, contender, budget, trial):
        return self.figures(self.distilled(model, contender, budget, *trial, seed=1), "valid")["valid"]["kl"]

    def chosen(self, model, contender, budget):
        """The trial whose KL on the validation part is lowest; of sft the paper's."""
        tried = "paper" if contender == "sft" else contender
        return min(self.trials(model, tried, budget), key=lambda trial: self.trial_kl(model, tried, budget, trial))

    def seconds(self, name):
        """How long a distillation took, calibration included; None for models that were not trained."""
        kept = self.out / "runs" / f"{name}.json"
        return json.load(open(kept))["seconds"] if kept.exists() else None


def jobs(study, models, stage):
    """What can run side by side."""
    for model in models:
        if stage == "teacher":
            yield lambda m=model: study.train_teacher(m)
        if stage == "plateau":
            yield lambda m=model: study.train_longer(m)
        if stage == "sweep":
            for make in (lambda m: study.untouched(m), lambda m: study.converted(m, False), lambda m: study.converted(m, True)):
                yield lambda m=model, make=make: study.figures(make(m), "test")
    for budget in study.budgets:
        for model in models:
            for contender in study.contenders:
                if stage == "sweep" and contender in RATES:
                    for trial in study.trials(model, contender, budget):
                        yield lambda a=(model, contender, budget, *trial): study.figures(study.distilled(*a, seed=1), "valid")
                elif stage == "seeds":
                    trial = study.chosen(model, contender, budget)
                    for seed in SEEDS:
                        yield lambda a=(model, contender, budget, *trial, seed): study.figures(study.distilled(*a), "test")


def spread(values):
    mean = statistics.fmean(values)
    return f"{mean:.4f}" if len(values) == 1 else f"{mean:.4f} ± {statistics.stdev(values):.4f}"


def report(study, models):
    lines, charts, teachers = [], {}, {}
    for model in models:
        floor, ceiling = (study.figures(name, "test")["test"]["loss"]
                          for name in (study.untouched(model), study.converted(model, False)))
        curves = charts.setdefault(model, {})

        def gap(test):
            return (ceiling - test["loss"]) / (ceiling - floor)

        def row(way, budget, names, trial=""):
            records = [study.figures(name, "test") for name in names]
            test = [record["test"] for record in records]
            pairs = [record["pairs"]["acc"] for record in records if "pairs" in record]
            seconds = [study.seconds(name) for name in names if study.seconds(name)]
            lines.append(f"| {way} | {100 * budget:g} % | {trial} | {spread([t['loss'] for t in test])} | "
                         f"{spread([gap(t) for t in test])} | {spread([t['kl'] for t in test])} | "
                         f"{spread([t['top1_agreement'] for t in test])} | {spread(pairs) if pairs else ''} | "
                         f"{f'{statistics.fmean(seconds):.0f}' if seconds else ''} |")
            if way != "teacher":
                curves.setdefault(way, {})[budget] = [t["kl"] for t in test]

        lines += [f"## {model}", "",
                  "| way | budget | lr, batch | loss | gap closed | KL | top-1 agreement | pairs | seconds a run |",
                  "|---|---|---|---|---|---|---|---|---|"]
        row("teacher", 0, [study.untouched(model)])
        row("untrained", 0, [study.converted(model, False)])
        row("calibrated", 0, [study.converted(model, True)])
        beside, trials = [], []
        for budget in study.budgets:
            tests = {}
            for contender in study.contenders:
                rate, batch = study.chosen(model, contender, budget)
                names = [study.distilled(model, contender, budget, rate, batch, seed=s) for s in SEEDS]
                row(contender, budget, names, f"{rate:g}, {batch}")
                tests[contender] = [study.figures(name, "test")["test"] for name in names]
                if contender in RATES:
                    trials.append(f"- {contender}, {100 * budget:g} %: " + ", ".join(
                        f"({rate:g}, {batch}) " + format(study.trial_kl(model, contender, budget, (rate, batch)), ".4f")
                        for rate, batch in study.trials(model, contender, budget)))
            for way in ("ours", "ours+") if "paper" in tests else ():
                if way not in tests:
                    continue
                both = list(zip(tests[way], tests["paper"]))
                better = sum(o["loss"] < p["loss"] and o["kl"] < p["kl"] for o, p in both)
                beside.append(f"- {way}, {100 * budget:g} %: better in both in {better} of {len(SEEDS)}: " + "; ".join(
                    f"{gap(o):.4f} against {gap(p):.4f}, {o['kl']:.4f} against {p['kl']:.4f}" for o, p in both))
        runs = [run for run in ("teacher", "longer") if (study.out / f"{run}-{model}").exists()]
        teachers[model] = {run: study.validation(f"{run}-{model}") for run in runs}
        if "longer" in runs:
            (steps, loss), (more_steps, longer_loss) = (points[-1] for points in teachers[model].values())
            lines += ["", f"The teacher's validation loss after {steps} steps: {loss:.4f}; half as long again, {more_steps} steps: "
                          f"{longer_loss:.4f}, {100 * (1 - longer_loss / loss):.2f} % lower."]
        lines += ["", "Ours beside the paper's recipe, seed by seed (gap closed, KL):", "", *beside,
                  "", "Trials (learning rate, batch) with their KL on the validation part:", "", *trials, ""]
    (study.out / "report.md").write_text("\n".join(lines))
    chart.draw(study.out / "report.svg", charts, chart.panel,
               "KL to the teacher on the test part, over the share of its tokens; a point is a seed")
    if any("longer" in runs for runs in teachers.values()):
        chart.draw(study.out / "teachers.svg", teachers, chart.loss_panel, "Validation loss over steps of the teachers' training")
    print("\n".join(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--models", default="mla,gqa")
    parser.add_argument("--budgets", default="0.01,0.03,0.1", help="shares of the teacher's tokens")
    parser.add_argument("--contenders", default=",".join(SETTINGS), help="some of them")
    parser.add_argument("--rates", default="", help="the one rate of a contender at a budget, in place of its three")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pairs", type=pathlib.Path, help="minimal pairs, BLiMP's JSONL")
    parser.add_argument("--farskip", type=pathlib.Path, default=ROOT / "build/farskip")
    parser.add_argument("--stage", choices=STAGES, help="one of them (default: all in order)")
    arguments = parser.parse_args()
    study, models = Study(arguments), arguments.models.split(",")
    for stage in [arguments.stage] if arguments.stage else STAGES:
        if stage == "report":
            report(study, models)
            continue
        with concurrent.futures.ThreadPoolExecutor(arguments.workers) as pool:
            work = jobs(study, models, stage)
            for future in [pool.submit(job) for job in work]:
                future.result()


if __name__ == "__main__":
    main()

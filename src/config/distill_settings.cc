#include "config/distill_settings.h"

#include <algorithm>

#include "base/error.h"
#include "config/train_config.h"

namespace farskip {
namespace {

void add_losses(Settings& table, DistillSettings& d) {
  table.add("temperature", d.temperature, 1.0,
            "Of both distributions in the KL divergence, whose weight is its square so that gradients keep their size.",
            Range::positive());
  table.add("cross_entropy_weight", d.cross_entropy_weight, 0.0,
            "Share w of the next token's cross-entropy in the loss, (1 - w) KL + w CE; 1: supervised fine-tuning.",
            Range::between(0, 1));
  table.add(
      "hidden_weight", d.hidden_weight, 0.0,
      "Weight of a further term, the mean over layers of |s - t|^2 / |t|^2 between the residual streams; it falls "
      "linearly to nothing.",
      Range::at_least(0));
  table.add_optional("hidden_decay_iters", d.hidden_decay_iters, "train_iters",
                     "Step at which hidden_weight has reached nothing.", Range::at_least(1));
  table.add("router_weight", d.router_weight, 0.0,
            "Weight of a further term, the mean over MoE layers of the KL between the gates' shares of the scores.",
            Range::at_least(0));
}

void add_safety(Settings& table, DistillSettings& d) {
  table.add("patience", d.patience, 0,
            "Evaluations in a row whose held-out KL is no better, after which the run ends; 0: it goes to its last "
            "step.",
            Range::at_least(0));
  table.add("min_improvement", d.min_improvement, 0.0,
            "Share of the best held-out KL by which one has to be lower to count as better.", Range::between(0, 1));
  table.add("keep_best", d.keep_best, true,
            "`export` gets the weights of the best held-out KL; false: the last ones. With `save` they are kept in "
            "SAVE/best meanwhile, else in memory.");
  table.add("result", d.result, "", "JSON file with the run's figures, for programs; empty: none.");
}

/// What distilling wants otherwise than training from nothing: weights are good already.
void change_defaults(Settings& table) {
  table.set_default("lr", "0.0003");
  table.set_default("lr_warmup_fraction", "0.05");
  table.set_default("moe_router_load_balancing_type", "none");
  table.set_default("moe_router_bias_update_rate", "0");
  table.set_default("loss_spike_factor", "10");
  table.set_default("grad_spike_factor", "10");
  table.set_default("guard_window", "20");
  table.set_default("guard_patience", "5");
}

void check_distillation(const Settings& table, const TrainConfig& c) {
  const DistillSettings& d = c.distill;
  if (!d.teacher_cache.empty() && d.top_k == 0)
    fail("{} keeps a part of the teacher's distribution; say how much: top_k=64", table.describe("teacher_cache"));
  if (d.teacher_cache.empty() && d.top_k > 0)
    fail("{} is for a cache; without one the whole distribution is there: leave it out, or give teacher_cache=FOLDER",
         table.describe("top_k"));
  if (d.top_k_samples > 0 && d.top_k == 0)
    fail("{}: what top_k leaves out; give top_k and teacher_cache", table.describe("top_k_samples"));
  for (const auto& [name, weight] :
       {std::pair{"hidden_weight", d.hidden_weight}, std::pair{"router_weight", d.router_weight}}) {
    if (weight > 0 && !d.teacher_cache.empty())
      fail("{} reads the teacher's inner values, which no cache holds; leave out {}", table.describe(name),
           table.describe("teacher_cache"));
  }
  if (d.patience > 0 && c.eval_interval == 0)
    fail("{}, but {}: nothing is evaluated on the way; give eval_interval", table.describe("patience"),
         table.describe("eval_interval"));
  if (d.patience > 0 && c.eval_iters == 0)
    fail("{}, but {}: nothing is evaluated", table.describe("patience"), table.describe("eval_iters"));
}

}  // namespace

double DistillSettings::hidden_weight_at(int64_t iteration, int64_t train_iters) const {
  const auto end = static_cast<double>(hidden_decay_iters.value_or(std::max<int64_t>(1, train_iters)));
  return hidden_weight * std::max(0.0, 1 - static_cast<double>(iteration) / end);
}

void add_distillation(Settings& table, TrainConfig& config) {
  DistillSettings& d = config.distill;
  table.section("Distillation");
  table.add("teacher", d.teacher, "",
            "The model to be repeated: a Hugging Face folder, or checkpoints of a run (the newest). The student begins "
            "with its weights, under `connectivity`; load=FOLDER begins with others. Empty connectivity: FarSkip from "
            "the first MoE layer on.");
  table.add("teacher_connectivity", d.teacher_connectivity, "",
            "What the teacher's config.json has to say; a check alone, as the connectivity belongs to the weights.");
  table.add("calibrate", d.calibrate, "",
            "Fit the weights to the student's connectivity in closed form before the first step (farskip convert "
            "--calibrate): true on the training data, or a text (a prefix of indexed data, or a file). Where it does "
            "not help on text held out, the run begins without.");
  table.add("calibrate_tokens", d.calibrate_tokens, 0,
            "Tokens to calibrate on; 0: 128 for each channel of the hidden size.", Range::at_least(0));
  add_losses(table, d);
  table.add("teacher_cache", d.teacher_cache, "",
            "Folder for the teacher's likeliest tokens, computed before the first step (or by a run before) instead of "
            "beside the student. Empty: teacher and student run together.");
  table.add("top_k", d.top_k, 0, "With teacher_cache: tokens kept of each distribution.", Range::at_least(0));
  table.add("top_k_samples", d.top_k_samples, 0,
            "Tokens drawn from what top_k leaves out, so that the loss is that of the whole distribution in the mean "
            "(arXiv 2503.16870); 0: the rest counts as one class, and the loss as a lower bound.",
            Range::at_least(0));
  add_safety(table, d);
}

Settings distill_settings(TrainConfig& config) {
  Settings table("farskip distill");
  add_distillation(table, config);
  add_train_settings(table, config);
  change_defaults(table);
  return table;
}

TrainConfig load_distill_config(const std::string& recipe, const std::vector<std::string>& overrides) {
  TrainConfig config;
  Settings table = distill_settings(config);
  read_settings(table, recipe, overrides);
  if (!config.distill.wanted())
    fail("teacher is not given; add teacher=FOLDER, the checkpoint whose predictions the student is to repeat");
  if (table.given("lr_warmup_iters") && !table.given("lr_warmup_fraction")) config.lr_warmup_fraction.reset();
  if (!config.model.empty() && config.model != config.distill.teacher)
    fail("{}, {}: the student has its teacher's shape; leave model out", table.describe("model"),
         table.describe("teacher"));
  config.model = config.distill.teacher;
  check_distillation(table, config);
  finish_settings(table, config);
  return config;
}

std::string distill_settings_help() {
  TrainConfig config;
  return distill_settings(config).help();
}

}  // namespace farskip

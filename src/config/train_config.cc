#include "config/train_config.h"

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "base/error.h"
#include "config/checkpoint_folder.h"
#include "config/train_steering.h"

namespace farskip {
namespace {

void add_model_and_data(Settings& table, TrainConfig& c) {
  table.section("Model");
  table.add("model", c.model, "", "A preset's name, or a folder with a config.json (and weights, see load).");
  table.add(
      "connectivity", c.connectivity, "",
      "What each layer's inputs miss: standard | farskip | attn-only | mlp-only | last=N | last=P% | layers=A-B | "
      "skip=a,f,g. It becomes part of the saved model. Empty: as the model's config.json says.");
  table.add_optional(
      "init_method_std", c.init_method_std, "model",
      "Standard deviation of the initial weights; output layers are scaled down by sqrt(2 L). model: the "
      "config.json's initializer_range.",
      Range::positive());
  table.add_choice("dtype", c.dtype, TrainDtype::fp32, {{TrainDtype::fp32, "fp32"}, {TrainDtype::bf16, "bf16"}},
                   "Type of weights and activations in forward and backward; master weights and optimiser are fp32.");
  table.section("Data");
  table.add(
      "data_path", c.data_path, "",
      "Prefix of the indexed data: PREFIX.bin and PREFIX.idx, as `farskip prepare` writes them. Or several, apart by "
      "blanks, each behind its weight (0.7 A 0.3 B) or in proportion to their sizes (A B).");
  table.add("train_data_path", c.train_data_path, "",
            "The same for training alone, with valid_data_path in place of split.");
  table.add("valid_data_path", c.valid_data_path, "", "The same for validation alone.");
  table.add("data_cache_path", c.data_cache_path, "",
            "Folder for the index files that say which sample is where; empty: beside the data.");
  table.add("eod_mask_loss", c.eod_mask_loss, false,
            "No loss for the token after the end of a document, which cannot be foreseen.");
  table.add("reset_attention_mask", c.reset_attention_mask, false,
            "Attention stays within each of the documents packed into a sequence.");
  table.add("reset_position_ids", c.reset_position_ids, false,
            "Positions begin anew with each document; needs reset_attention_mask.");
  table.add("verify_data", c.verify_data, false, "Compare the data with their checksums before the run.");
  table.add("tokenizer_type", c.tokenizer_type, "byte",
            "How text became tokens: byte (ids 0 to 255, 256 ends a document).");
  table.add("split", c.split, "969,30,1", "Shares of training, validation and test sequences.");
  table.add("seq_length", c.seq_length, 256, "Tokens per sequence.", Range::at_least(1));
  table.add("prefetch_steps", c.prefetch_steps, 2,
            "Steps whose sequences are read ahead, by a thread of each rank; 0: they are read when their step begins.",
            Range::at_least(0));
}

void add_optimisation(Settings& table, TrainConfig& c) {
  table.section("Batches");
  table.add("micro_batch_size", c.micro_batch_size, 1, "Sequences per rank and microbatch.", Range::at_least(1));
  table.add("global_batch_size", c.global_batch_size, 8,
            "Sequences per step over all ranks; a multiple of micro_batch_size * number of ranks.", Range::at_least(1));
  table.add(
      "rampup_batch_size", c.rampup_batch_size, "",
      "START,INCREMENT,SAMPLES: the global batch begins with START sequences and grows by INCREMENT at a time, over "
      "SAMPLES sequences, until it is global_batch_size; learning rates then count full batches. Empty: always full.");
  table.add("train_iters", c.train_iters, 1000, "Steps.", Range::at_least(0));
  table.add("seed", c.seed, 1234, "Seed of initial weights and of the order of sequences.", Range::at_least(0));
  add_optimiser(table, c);
  add_guard(table, c);
  add_router(table, c);
}

void add_run(Settings& table, TrainConfig& c) {
  table.section("Ranks");
  table.add("layout", c.layout, "",
            "Shorthand for the parallel sizes, such as ep=2,dp=1; may not contradict them. Empty: from the sizes and "
            "the number of ranks.");
  table.add(
      "use_distributed_optimizer", c.use_distributed_optimizer, false,
      "Share masters and optimizer state out over the replicas: gradients are reduced to the rank that keeps them, "
      "weights gathered at the beginning of a step, both under computation.");
  table.add_choice("recompute_granularity", c.recompute_granularity, RecomputeGranularity::none,
                   {{RecomputeGranularity::none, "none"},
                    {RecomputeGranularity::selective, "selective"},
                    {RecomputeGranularity::full, "full"}},
                   "What is computed again for the backward pass instead of being kept: nothing, recompute_modules, or "
                   "whole layers, their collectives included. No bit changes.");
  table.add("recompute_modules", c.recompute_modules, "core_attn",
            "With recompute_granularity=selective, words: core_attn (saves little: no kernel keeps scores), layernorm "
            "(the norms before products), moe_act (the "
            "activations of routed and shared experts).");
  table.add("recompute_num_layers", c.recompute_num_layers, 0,
            "With recompute_granularity=full the number of layers, the first ones; 0: all.", Range::at_least(0));
  table.add("expert_model_parallel_size", c.expert_model_parallel_size, 1,
            "Ranks among which the experts are divided (ep).", Range::at_least(1));
  table.add(
      "schedule", c.schedule, "search",
      "Order of the stages: reference | paper | search | a file with a schedule. It changes no bit of the result.");
  table.add_choice("transport", c.transport, TransportKind::automatic,
                   {{TransportKind::automatic, "auto"},
                    {TransportKind::loopback, "loopback"},
                    {TransportKind::gloo, "gloo"},
                    {TransportKind::nccl, "nccl"}},
                   "How bytes cross ranks. auto: nccl on GPUs, gloo between processes, loopback between threads.");
  table.add("link", c.link, "none", "Emulated link, such as rate=2gbit,latency=50us; none: the transport as it is.");
  table.add("timeout", c.timeout, 600.0, "Seconds after which a collective that does not complete ends the run.",
            Range::positive());
  table.section("Checkpoints and reports");
  table.add("save", c.save, "",
            "Folder for checkpoints (iter_0000100/, ...) to go on from, each of them also a Hugging Face folder. "
            "SIGUSR1 asks for one, SIGTERM for one and the end of the run. Empty: none are written.");
  table.add("save_interval", c.save_interval, 0, "Steps between checkpoints; 0: only at the end.", Range::at_least(0));
  table.add("keep_checkpoints", c.keep_checkpoints, 2, "How many of the newest checkpoints are kept; 0: all.",
            Range::at_least(0));
  table.add("async_save", c.async_save, true, "Training goes on while a checkpoint is written.");
  table.add("load", c.load, "",
            "Folder of checkpoints to go on from, with the same bits at the same number of ranks; or a Hugging Face "
            "folder to begin with its weights. Empty: initial weights are drawn.");
  table.add("finetune", c.finetune, false, "Of a checkpoint in `load` take the weights alone.");
  table.add("auto_resume", c.auto_resume, false, "Go on from `save` where it holds a checkpoint.");
  table.add("export", c.export_folder, "", "Hugging Face folder for the trained model; empty: none is written.");
  table.add("eval_interval", c.eval_interval, 100,
            "Steps between evaluations of the validation loss; 0: only at the end.", Range::at_least(0));
  table.add("eval_iters", c.eval_iters, 10, "Global batches per evaluation; 0: no evaluation.", Range::at_least(0));
  table.add("log_interval", c.log_interval, 10, "Steps between log lines.", Range::at_least(1));
  table.add("log_file", c.log_file, "", "JSON lines, one per logged step and evaluation; empty: none.");
  table.add("tensorboard_dir", c.tensorboard_dir, "", "Folder for TensorBoard's event files; empty: none.");
  table.add("report", c.report, "",
            "Report of the run as one HTML page, to be opened while the run goes on; empty: none.");
  table.add("report_interval", c.report_interval, 10.0,
            "Seconds between renewals of the report while the run goes on; 0: written at the end alone.",
            Range::at_least(0));
}

/// Sizes of "ep=2,dp=1", 0 where a size is not named.
struct LayoutSizes {
  int64_t ep = 0, dp = 0, tp = 0, pp = 0;
};

LayoutSizes parse_layout(const Settings& table, const std::string& layout) {
  LayoutSizes sizes;
  size_t begin = 0;
  while (begin < layout.size()) {
    const size_t comma = std::min(layout.find(',', begin), layout.size());
    const std::string part = layout.substr(begin, comma - begin);
    begin = comma + 1;
    const std::string key = part.substr(0, part.find('='));
    int64_t* size = key == "ep"   ? &sizes.ep
                    : key == "dp" ? &sizes.dp
                    : key == "tp" ? &sizes.tp
                    : key == "pp" ? &sizes.pp
                                  : nullptr;
    const char* digits = part.data() + std::min(key.size() + 1, part.size());
    const char* end = part.data() + part.size();
    if (!size) fail("{}: \"{}\" is not a size; ep, dp, tp and pp are", table.describe("layout"), part);
    if (*size) fail("{}: {} is given twice", table.describe("layout"), key);
    if (std::from_chars(digits, end, *size).ptr != end || digits == end || *size < 1) {
      fail("{}: \"{}\": a positive integer was expected after {}=", table.describe("layout"), part, key);
    }
  }
  return sizes;
}

/// Layout and Megatron's sizes are two spellings of the same thing; after this they agree.
void apply_layout(const Settings& table, TrainConfig& c) {
  const LayoutSizes sizes = parse_layout(table, c.layout);
  if (sizes.tp > 1 || sizes.pp > 1)
    fail("{}: training with tp or pp above 1 is not supported; leave them out", table.describe("layout"));
  if (sizes.ep) {
    if (table.given("expert_model_parallel_size") && c.expert_model_parallel_size != sizes.ep) {
      fail("{} contradicts {}; give one of them, or the same number", table.describe("layout"),
           table.describe("expert_model_parallel_size"));
    }
    c.expert_model_parallel_size = sizes.ep;
  }
  c.data_parallel = sizes.dp;
}

void check(const Settings& table, const TrainConfig& c) {
  if (c.model.empty()) fail("model is not given; add model=NAME, a preset's name or a folder with a config.json");
  c.batch_ramp();
  check_optimiser(table, c);
  check_guard(table, c);
  if (c.global_batch_size % c.micro_batch_size != 0) {
    fail("{} is not a multiple of {}", table.describe("global_batch_size"), table.describe("micro_batch_size"));
  }
  if (c.save_interval > 0 && c.save.empty()) fail("{} without save; add save=FOLDER", table.describe("save_interval"));
  if (c.export_folder == c.save && !c.save.empty())
    fail("{} is also {}; give the exported model a folder of its own", table.describe("export"),
         table.describe("save"));
  if (c.reset_position_ids && !c.reset_attention_mask) {
    fail(
        "{}, but {}: tokens that see each other would stand at the same position; add reset_attention_mask=true, or "
        "leave both out",
        table.describe("reset_position_ids"), table.describe("reset_attention_mask"));
  }
  if (c.tokenizer_type != "byte") fail("{}: the only tokenizer so far is byte", table.describe("tokenizer_type"));
}

/// Nobody overwrites checkpoints by accident: a folder that holds some is gone on from, or refused.
void apply_auto_resume(const Settings& table, TrainConfig& c) {
  if (c.auto_resume && c.save.empty()) fail("{} without save; add save=FOLDER", table.describe("auto_resume"));
  if (c.save.empty() || !is_checkpoint_root(c.save)) return;
  std::error_code absent;
  if (c.auto_resume) {
    c.load = c.save;
  } else if (c.load.empty() || !std::filesystem::equivalent(c.load, c.save, absent)) {
    fail(
        "{}: the folder holds checkpoints, the newest {}; go on from them with auto_resume=true (or load={}), or "
        "choose another folder",
        table.describe("save"), resolve_model_folder(c.save), c.save);
  }
}

}  // namespace

TrainConfig::TrainConfig() {
  Settings table = train_settings(*this);
  add_distillation(table, *this);
}

void add_train_settings(Settings& table, TrainConfig& config) {
  add_model_and_data(table, config);
  add_optimisation(table, config);
  add_run(table, config);
}

Settings train_settings(TrainConfig& config) {
  Settings table("farskip train");
  add_train_settings(table, config);
  return table;
}

void read_settings(Settings& table, const std::string& recipe, const std::vector<std::string>& overrides) {
  if (!recipe.empty()) table.read_file(recipe);
  for (const std::string& assignment : overrides) table.override_with(assignment);
}

void finish_settings(const Settings& table, TrainConfig& config) {
  apply_layout(table, config);
  check(table, config);
  apply_auto_resume(table, config);
}

TrainConfig load_train_config(const std::string& recipe, const std::vector<std::string>& overrides) {
  TrainConfig config;
  Settings table = train_settings(config);
  read_settings(table, recipe, overrides);
  finish_settings(table, config);
  return config;
}

void TrainConfig::resolve(int64_t world) {
  const int64_t ep = expert_model_parallel_size;
  if (world < 1 || world % ep != 0)
    fail("{} ranks cannot be divided into groups of expert_model_parallel_size = {}; start a multiple of it", world,
         ep);
  if (data_parallel && ep * data_parallel != world) {
    fail("layout ep={},dp={} is for {} ranks, but {} were started", ep, data_parallel, ep * data_parallel, world);
  }
  if (global_batch_size % (micro_batch_size * world) != 0) {
    fail("global_batch_size = {} is not a multiple of micro_batch_size * ranks = {} * {}", global_batch_size,
         micro_batch_size, world);
  }
  batch_ramp().check_divides(micro_batch_size, world);
  data_parallel = world / ep;
  layout = fmt::format("ep={},dp={}", ep, data_parallel);
}

int64_t TrainConfig::num_microbatches() const {
  FARSKIP_CHECK(data_parallel > 0, "resolve() comes first");
  return global_batch_size / (micro_batch_size * expert_model_parallel_size * data_parallel);
}

std::string train_recipe(const TrainConfig& config) {
  TrainConfig copy;
  Settings table = config.distill.wanted() ? distill_settings(copy) : train_settings(copy);
  copy = config;  // the table prints what its variables hold now
  return table.to_yaml();
}

std::string train_settings_help() {
  TrainConfig config;
  return train_settings(config).help();
}

std::string train_settings_markdown() {
  TrainConfig config;
  return train_settings(config).markdown();
}

}  // namespace farskip

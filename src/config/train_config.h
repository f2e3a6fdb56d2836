#pragma once
// A training run, in Megatron's names: what a recipe says. Connectivity and shape belong to the model; everything else
// here belongs to the run.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/batch_ramp.h"
#include "config/distill_settings.h"
#include "config/lr_schedule.h"
#include "config/settings.h"

namespace farskip {

struct ModelConfig;
enum class LoadBalancing { seq_aux_loss, aux_loss, global_aux_loss, none };
enum class RecomputeGranularity { none, selective, full };
enum class TrainDtype { fp32, bf16 };
enum class TransportKind { automatic, loopback, gloo, nccl };

/// Defaults, ranges and meanings stand in train_settings(), their only place.
struct TrainConfig {
  // Model
  std::string model;
  std::string connectivity;  ///< spelling of layer/connectivity.h; empty: what the model's config.json says
  std::optional<double> init_method_std;  ///< absent: the model's initializer_range
  TrainDtype dtype;
  // Data
  std::string data_path;  ///< prefixes, or weights and prefixes, apart by blanks
  std::string train_data_path;
  std::string valid_data_path;
  std::string data_cache_path;
  bool eod_mask_loss;
  bool reset_position_ids;
  bool reset_attention_mask;
  bool verify_data;
  std::string tokenizer_type;
  std::string split;
  int64_t seq_length;
  int64_t prefetch_steps;  ///< 0: nothing runs in the background
  // Batch
  int64_t micro_batch_size;
  int64_t global_batch_size;
  std::string rampup_batch_size;  ///< spelling of BatchRamp::parse()
  int64_t train_iters;
  int64_t seed;
  // Optimiser
  double lr;
  double min_lr;
  int64_t lr_warmup_iters;
  std::optional<double> lr_warmup_fraction;  ///< of lr_decay_iters; absent: lr_warmup_iters holds
  double lr_warmup_init;
  std::optional<int64_t> lr_decay_iters;  ///< absent: train_iters
  LrDecayStyle lr_decay_style;
  WsdDecayStyle lr_wsd_decay_style;
  std::optional<int64_t> lr_wsd_decay_iters;
  std::optional<double> decoupled_lr;      ///< absent: lr
  std::optional<double> decoupled_min_lr;  ///< absent: min_lr
  std::string lr_multipliers;              ///< words PATTERN=FACTOR
  std::string freeze;                      ///< words PATTERN
  double weight_decay;
  std::optional<double> start_weight_decay;  ///< absent: weight_decay
  std::optional<double> end_weight_decay;    ///< absent: weight_decay
  WeightDecayStyle weight_decay_incr_style;
  double adam_beta1;
  double adam_beta2;
  double adam_eps;
  double clip_grad;
  // Guard
  bool skip_nonfinite;
  double loss_spike_factor;  ///< 0: off
  double grad_spike_factor;  ///< 0: off
  int64_t guard_window;
  int64_t guard_patience;
  // Router
  double moe_router_bias_update_rate;
  LoadBalancing moe_router_load_balancing_type;
  std::optional<double> moe_aux_loss_coeff;  ///< absent: the model's aux_loss_alpha
  double moe_z_loss_coeff;
  bool moe_router_force_load_balancing;
  // Ranks
  std::string layout;
  bool use_distributed_optimizer;
  RecomputeGranularity recompute_granularity;
  std::string recompute_modules;
  int64_t recompute_num_layers;
  int64_t expert_model_parallel_size;
  std::string schedule;
  TransportKind transport;
  std::string link;  ///< emulated link; empty or "none": none
  double timeout;    ///< seconds
  // Checkpoints, evaluation, reports
  std::string save;
  std::string load;
  bool finetune;
  bool auto_resume;
  int64_t save_interval;
  int64_t keep_checkpoints;
  bool async_save;
  std::string export_folder;  ///< setting `export`
  int64_t eval_interval;
  int64_t eval_iters;
  int64_t log_interval;
  std::string log_file;
  std::string tensorboard_dir;
  std::string report;
  double report_interval;  ///< seconds; 0: at the end alone
  // farskip distill
  DistillSettings distill;

  /// Replicas of each expert (Layout::dp): 0 until `layout` or resolve() says. Megatron's data-parallel size is
  /// expert_model_parallel_size * data_parallel.
  int64_t data_parallel = 0;

  TrainConfig();

  /// Fills data_parallel and `layout` for a run of `world` ranks. Throws Error where the ranks do not divide,
  /// contradict `layout`, or the global batch is not a whole number of microbatches.
  void resolve(int64_t world);
  /// Microbatches per rank and step. REQUIRES: resolve().
  int64_t num_microbatches() const;
  /// Factor of the auxiliary loss; 0: none.
  double aux_loss_alpha(const ModelConfig& model) const;
  LrSchedule lr_schedule() const;
  /// How the global batch grows. Throws Error for a rampup_batch_size that is none.
  BatchRamp batch_ramp() const;
  /// Of the step that trains this batch; steps are counted in full batches.
  StepRates rates(const BatchPosition& position) const;
};

/// Appends the settings of farskip train to a table.
void add_train_settings(Settings& table, TrainConfig& config);
/// Reads a recipe (empty: none) and overrides.
void read_settings(Settings& table, const std::string& recipe, const std::vector<std::string>& overrides);
/// Checks what single ranges cannot, and makes settings agree that are two spellings of one thing.
void finish_settings(const Settings& table, TrainConfig& config);

/// The table of all settings, bound to `config` (which gets the defaults and must outlive the table).
Settings train_settings(TrainConfig& config);

/// Reads `recipe` (a YAML file; empty: defaults only), then the overrides ("lr=1e-3"), and checks what single ranges
/// cannot. Throws Error for unknown names (with the nearest one), wrong types or ranges, and contradictions, with the
/// place of each setting involved.
TrainConfig load_train_config(const std::string& recipe, const std::vector<std::string>& overrides);

/// The recipe that loads as `config` (a resolved one too), for the record beside a checkpoint.
std::string train_recipe(const TrainConfig& config);

/// Text of `farskip train --help-settings`, and the page docs/settings.md.
std::string train_settings_help();
std::string train_settings_markdown();

}  // namespace farskip

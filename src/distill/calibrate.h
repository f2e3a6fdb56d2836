#pragma once
// Conversion to another connectivity without any training: layer by layer, every reader whose input has changed gets
// the closed-form input map of distill/input_map.h, fitted on what the student itself computes for some text.

#include <functional>
#include <vector>

#include "config/model_config.h"
#include "distill/input_map.h"
#include "exec/executor.h"
#include "layer/connectivity.h"
#include "model/parameter_set.h"

namespace farskip {

/// Of a calibration text, for each channel of the hidden size, where nothing else is said.
inline constexpr int64_t calibration_tokens_per_channel = 128;

struct CalibrationOptions {
  int64_t tokens_per_chunk = 2048;  ///< that are computed together
  double held_out = 0.125;  ///< share of the sequences that only judge: they choose dampings and accept the whole
  std::vector<double> dampings = {3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1};
  /// Folder for what waits between layers (it is removed from there); empty: it waits in memory.
  std::string spool_folder = {};
  std::function<void(int64_t layers_done)> on_progress = {};
};

/// How far a student's predictions are from its teacher's, on held-out tokens.
struct Agreement {
  double kl = 0;    ///< mean of KL(teacher || student), nats a token
  double top1 = 0;  ///< share of tokens with the same likeliest token
  double num_tokens = 0;
};

struct CalibrationReport {
  struct Reader {
    int64_t layer;
    bool attention;                ///< else the feed-forward
    double damping;                ///< 0: not mapped
    double identity_error, error;  ///< ChosenMap's
  };
  std::vector<Reader> readers;  ///< those whose input differs from the teacher's
  Agreement before, after;
  double fitted_tokens = 0;  ///< over all ranks
  bool accepted() const { return after.kl < before.kl; }
};

/// Memory of the statistics of one rank, and on disk (or in memory) of the values that wait, in bytes.
struct CalibrationPlan {
  double statistics_bytes = 0, waiting_bytes = 0;
};
CalibrationPlan plan_calibration(const ModelConfig& model, int64_t num_tokens);

/// Maps the weights in `parameters` (fp32, without masters) for `student`. `tokens` [N, S] int64 are this rank's
/// sequences, on every rank as many; statistics are sums over ranks. Called by all ranks. Where the report is not
/// accepted(), the weights are of no use. Throws Error for too few sequences to hold some out.
CalibrationReport calibrate(const ModelConfig& model, const Connectivity& teacher, const Connectivity& student,
                            ParameterSet& parameters, const Communicators& communicators, const Layout& layout,
                            const at::Tensor& tokens, const CalibrationOptions& options = {});

}  // namespace farskip

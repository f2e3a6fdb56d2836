#pragma once
// Conversion to another connectivity without any training: layer by layer, every reader whose input has changed gets a
// closed-form input map (distill/linear_map.h), and what attention and feed-forward add to the residual stream an
// output map that makes up for what the stream lacks so far: one map for both where the feed-forward does not read its
// layer's attention, so that attention can add what the experts have not seen. Each routed expert has maps of its own.
// The head reads through a map at last. All are fitted on what the student itself computes for some text.

#include <functional>
#include <string>
#include <vector>

#include "config/model_config.h"
#include "distill/agreement.h"
#include "distill/map_site.h"
#include "exec/executor.h"
#include "layer/connectivity.h"
#include "model/parameter_set.h"

namespace farskip {

/// Of a calibration text, for each channel of the hidden size, where nothing else is said.
inline constexpr int64_t calibration_tokens_per_channel = 128;

struct CalibrationOptions {
  int64_t tokens_per_chunk = 2048;  ///< that are computed together
  double held_out = 0.125;  ///< share of the sequences that only judge: they choose dampings and accept the whole
  std::vector<double> dampings = {1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1};
  int expert_rounds = 2;  ///< of expert outputs: those of a token share what they make up for
  /// Where the statistics of all experts of a layer would take more, they share the layer's maps.
  double max_expert_bytes = 9e9;
  /// Folder for what waits between layers (it is removed from there); empty: it waits in memory.
  std::string spool_folder = {};
  std::function<void(int64_t layers_done)> on_progress = {};
};

struct CalibrationReport {
  struct Map {
    int64_t layer;  ///< the number of layers for the head
    MapSite site;
    int64_t num_maps, num_mapped;  ///< one, or one for each expert; those that help on tokens held out
    double damping;                ///< of a single one
    double identity_error, error;  ///< ChosenMap's, of experts over them all
  };
  std::vector<Map> maps;  ///< where the student differs from its teacher
  Agreement before, after;
  double fitted_tokens = 0;  ///< over all ranks
  bool accepted() const { return after.kl < before.kl; }
  /// What the maps have changed; each once or more often.
  MappedWeights mapped_weights(nn::ModelWeights& weights) const;
};

/// Maps the weights in `parameters` (fp32, without masters) for `student`. `tokens` [N, S] int64 are this rank's
/// sequences, on every rank as many; statistics are sums over ranks. Called by all ranks. Where the report is not
/// accepted(), the weights are of no use. Throws Error for too few sequences to hold some out.
CalibrationReport calibrate(const ModelConfig& model, const Connectivity& teacher, const Connectivity& student,
                            ParameterSet& parameters, const Communicators& communicators, const Layout& layout,
                            const at::Tensor& tokens, const CalibrationOptions& options = {});

}  // namespace farskip

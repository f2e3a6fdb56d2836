#pragma once
// The HTML page of a run, while it goes on and when it has ended.

#include <map>
#include <string>
#include <vector>

#include "trace/charts.h"
#include "train/run_history.h"

namespace farskip {

enum class RunState {
  running,
  finished,  ///< all steps are done
  stopped,   ///< a signal asked for it, behind a checkpoint
  failed,
};

/// What the page shows; what is empty is left out.
struct RunPage {
  std::string command = "train";  ///< of farskip
  std::string model, connectivity, layout, schedule;
  std::string recipe;  ///< all settings
  RunState state = RunState::running;
  std::string ending;      ///< one sentence: how the run ended
  double refresh_s = 0;    ///< while the run goes on, the page loads itself again after so many seconds; 0: never
  std::string written_at;  ///< date and time
  int64_t train_iters = 0;
  double elapsed_s = 0;     ///< since this start of the run
  double left_s = 0;        ///< until train_iters
  int64_t last_saved = -1;  ///< iteration of the last checkpoint that was begun; -1: none
  RunHistory history{0};
  std::vector<std::vector<int64_t>> load;  ///< per layer, rows of each expert in the last step
  std::vector<std::pair<int64_t, std::vector<double>>>
      rank_ms;                   ///< (iteration, computing ms of each rank), newest last
  Timeline measured, simulated;  ///< one step of rank 0; of the same schedule
  OverlapSummary overlap;        ///< of `measured`
};

std::string run_page_html(const RunPage& page);

/// Rows per expert and layer in one step.
Heatmap expert_load_heatmap(const std::vector<std::vector<int64_t>>& load);

}  // namespace farskip

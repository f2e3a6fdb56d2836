#pragma once
// What rank 0 writes down while a run goes on: the lines of log_file, curves for TensorBoard, the report.

#include <fstream>
#include <optional>

#include "base/event_file.h"
#include "train/live_report.h"
#include "train/session.h"
#include "train/step_log.h"

namespace farskip {

class RunLog {
 public:
  /// A run that goes on from `first_iteration` (> 0) goes on with its log_file too, and its report with what that says;
  /// lines of steps that are done again are dropped. `page` says what is known of the run from the start. Throws Error
  /// where files cannot be made.
  RunLog(const TrainConfig& config, int64_t first_iteration, RunPage page);

  /// `reason`: why the guard left the step out. Throws Error where log_file cannot be written.
  void step(const StepRecord& record, const StepStats& stats, const std::string& reason);
  void validation(int64_t iteration, const Evaluation& evaluation, int64_t samples);
  /// Something out of the ordinary.
  void event(int64_t iteration, const std::string& text);
  /// Of log_interval steps, of each rank.
  void computing_ms(int64_t iteration, const std::vector<double>& ms_of_rank);
  /// Of each rank's process, in bytes. Told when it has grown.
  void peak_memory(int64_t iteration, const std::vector<double>& bytes_of_rank);

  /// Null where the run has none.
  LiveReport* report() { return report_ ? &*report_ : nullptr; }

 private:
  void open_file(const std::string& path, int64_t first_iteration);
  void drop_lines_behind(const std::string& path, int64_t iteration);
  void add_line(const nlohmann::json& line);

  const std::string log_file_;
  const int64_t log_interval_;
  std::ofstream file_;
  std::optional<EventFile> events_;
  double told_bytes_ = 0;
  std::optional<LiveReport> report_;
};

}  // namespace farskip

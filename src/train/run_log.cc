#include "train/run_log.h"

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"

namespace farskip {
namespace {

/// Log intervals whose computing times the report shows.
constexpr size_t kShownIntervals = 20;

}  // namespace

RunLog::RunLog(const TrainConfig& config, int64_t first_iteration, RunPage page)
    : log_file_(config.log_file), log_interval_(config.log_interval) {
  if (!config.report.empty()) {
    page.history = RunHistory(config.seq_length);
    report_.emplace(config.report, config.report_interval, std::move(page));
  }
  if (!log_file_.empty()) open_file(log_file_, first_iteration);
  if (!config.tensorboard_dir.empty()) events_.emplace(config.tensorboard_dir);
}

void RunLog::open_file(const std::string& path, int64_t first_iteration) {
  create_parent_folders(path);
  const bool goes_on = first_iteration > 0 && std::filesystem::is_regular_file(path);
  if (goes_on) drop_lines_behind(path, first_iteration);
  file_.open(path, goes_on ? std::ios::app : std::ios::trunc);
  if (!file_) fail("log_file={}: cannot be written", path);
}

void RunLog::drop_lines_behind(const std::string& path, int64_t iteration) {
  std::ifstream lines(path);
  AtomicFile kept(path);
  for (std::string line; std::getline(lines, line);) {
    const auto entry = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!entry.is_object() || entry.value("iteration", iteration + 1) > iteration) continue;
    kept.write(line + "\n");
    if (report_) report_->page().history.add(entry);
  }
  kept.commit();
}

void RunLog::add_line(const nlohmann::json& line) {
  if (report_) report_->page().history.add(line);
  if (!file_.is_open()) return;
  file_ << line << "\n" << std::flush;
  if (!file_) fail("log_file={}: writing failed; is the disk full?", log_file_);
}

void RunLog::step(const StepRecord& record, const StepStats& stats, const std::string& reason) {
  if (events_) {
    events_->add(record.iteration, step_scalars(record, stats));
    if (record.iteration % log_interval_ == 0) events_->flush();
  }
  if (report_) report_->page().load = stats.load;
  if (report_ || file_.is_open()) add_line(step_line(record, stats, reason));
}

void RunLog::validation(int64_t iteration, const Evaluation& evaluation, int64_t samples) {
  nlohmann::json line{{"iteration", iteration}, {"validation_loss", evaluation.loss}, {"samples", samples}};
  std::vector<std::pair<std::string, double>> scalars = {{"lm loss validation", evaluation.loss}};
  if (const auto& distill = evaluation.distill) {
    line["held_out"] = distill->to_json();
    scalars.emplace_back("kl held out", distill->kl);
    scalars.emplace_back("top-1 agreement held out", distill->top1);
  }
  if (events_) {
    events_->add(iteration, scalars);
    events_->flush();
  }
  add_line(line);
}

void RunLog::event(int64_t iteration, const std::string& text) {
  add_line({{"iteration", iteration}, {"event", text}});
}

void RunLog::peak_memory(int64_t iteration, const std::vector<double>& bytes_of_rank) {
  const auto most = std::max_element(bytes_of_rank.begin(), bytes_of_rank.end());
  if (*most < 1.02 * told_bytes_) return;
  told_bytes_ = *most;
  log_info(fmt::format("memory: a rank's process has held at most {:.0f} MiB (rank {})", *most / (1 << 20),
                       most - bytes_of_rank.begin()));
  add_line({{"iteration", iteration}, {"peak_memory_bytes", bytes_of_rank}});
}

void RunLog::computing_ms(int64_t iteration, const std::vector<double>& ms_of_rank) {
  if (!report_) return;
  auto& shown = report_->page().rank_ms;
  shown.emplace_back(iteration, ms_of_rank);
  if (shown.size() > kShownIntervals) shown.erase(shown.begin());
}

}  // namespace farskip

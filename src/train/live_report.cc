#include "train/live_report.h"

#include <sys/resource.h>
#include <unistd.h>

#include <ctime>
#include <filesystem>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/progress.h"

namespace farskip {
namespace {

std::string date_and_time() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  ::localtime_r(&now, &local);
  char text[64];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S %z", &local)};
}

}  // namespace

LiveReport::LiveReport(std::string path, double interval_s, RunPage page)
    : path_(std::move(path)), interval_s_(interval_s), started_s_(monotonic_seconds()), page_(std::move(page)) {
  create_parent_folders(path_);
  if (std::filesystem::is_directory(path_)) fail("report={}: it is a folder; give the name of a file", path_);
  page_.refresh_s = interval_s_;
}

LiveReport::~LiveReport() {
  if (writing_.valid()) writing_.wait();
}

bool LiveReport::due() const {
  if (interval_s_ <= 0) return false;
  if (writing_.valid() && writing_.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return false;
  return monotonic_seconds() >= next_s_;
}

void LiveReport::renew() {
  if (writing_.valid()) writing_.wait();
  page_.elapsed_s = monotonic_seconds() - started_s_;
  page_.written_at = date_and_time();
  writing_ = std::async(std::launch::async, [this, page = page_] {
    ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), 19);  // of this thread alone
    write(page);
    next_s_ = monotonic_seconds() + interval_s_;
  });
}

void LiveReport::end(RunState state, const std::string& ending) {
  if (writing_.valid()) writing_.wait();
  page_.state = state;
  page_.ending = ending;
  page_.elapsed_s = monotonic_seconds() - started_s_;
  page_.written_at = date_and_time();
  write(page_);
}

void LiveReport::write(const RunPage& page) {
  try {
    write_file(path_, run_page_html(page));
    told_ = false;
  } catch (const std::exception& error) {
    if (!told_) log_warning(fmt::format("report={}: {}; training goes on", path_, error.what()));
    told_ = true;
  }
}

}  // namespace farskip

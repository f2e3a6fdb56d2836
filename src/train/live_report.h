#pragma once
// The report of a run as a file: written by a thread while the run goes on, and at its end.

#include <future>
#include <string>

#include "train/run_page.h"

namespace farskip {

class LiveReport {
 public:
  /// `interval_s`: between renewals, counted from the end of one to the begin of the next; 0: only the end is written.
  /// Throws Error where `path` is a folder, or its folder cannot be made.
  LiveReport(std::string path, double interval_s, RunPage page);
  /// Waits for a renewal under way.
  ~LiveReport();
  LiveReport(const LiveReport&) = delete;
  LiveReport& operator=(const LiveReport&) = delete;

  /// What the next renewal shows.
  RunPage& page() { return page_; }
  /// True where a renewal is due and none is under way.
  bool due() const;
  /// Begins a renewal, in a thread of the lowest priority; the page is copied. What hinders it (a full disk) is told in
  /// the log once, until it works again.
  void renew();
  /// Writes the page that stays. REQUIRES: once, and no renewal afterwards.
  void end(RunState state, const std::string& ending);

 private:
  void write(const RunPage& page);

  const std::string path_;
  const double interval_s_;
  const double started_s_;
  RunPage page_;
  double next_s_ = 0;          ///< monotonic_seconds() of the next renewal; set by the writing thread
  bool told_ = false;          ///< that the file cannot be written; used by whoever writes
  std::future<void> writing_;  ///< valid: a renewal is, or was, under way
};

}  // namespace farskip

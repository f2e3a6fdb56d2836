#include "infer/stop_text.h"

#include <algorithm>
#include <utility>

namespace farskip {

StopText::StopText(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase_if(stops_, [](const std::string& stop) { return stop.empty(); });
}

std::string StopText::push(std::string_view piece) {
  if (stopped_) return "";
  held_ += piece;
  size_t stop = std::string::npos;
  for (const auto& s : stops_) stop = std::min(stop, held_.find(s));
  if (stop != std::string::npos) {
    stopped_ = true;
    held_.resize(stop);
    return std::exchange(held_, "");
  }
  size_t kept = 0;  // the longest end that may be the beginning of a stop string
  for (const auto& s : stops_) {
    for (size_t n = std::min(s.size() - 1, held_.size()); n > kept; --n) {
      if (held_.ends_with(std::string_view(s).substr(0, n))) {
        kept = n;
        break;
      }
    }
  }
  std::string shown = held_.substr(0, held_.size() - kept);
  held_.erase(0, shown.size());
  return shown;
}

std::string StopText::finish() { return stopped_ ? "" : std::exchange(held_, ""); }

}  // namespace farskip

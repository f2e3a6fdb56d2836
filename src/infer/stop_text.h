#pragma once
// Text that comes in pieces, up to the first of some strings.

#include <string>
#include <string_view>
#include <vector>

namespace farskip {

class StopText {
 public:
  explicit StopText(std::vector<std::string> stops);

  /// What can be shown now: never a part of a stop string, and nothing from one on.
  std::string push(std::string_view piece);
  /// What was held back, once nothing more comes; empty after a stop.
  std::string finish();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace farskip

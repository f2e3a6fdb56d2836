#include "data/split.h"

#include <cmath>
#include <cstdlib>
#include <vector>

#include "base/error.h"

namespace farskip {
namespace {

std::vector<double> parse_shares(const std::string& text) {
  std::vector<double> shares;
  const char* at = text.c_str();
  for (;;) {
    char* end = nullptr;
    const double share = std::strtod(at, &end);
    const bool ends_well = *end == ',' || *end == '\0';
    if (end == at || !ends_well || !std::isfinite(share) || share < 0) {
      fail("split={}: expected up to three non-negative numbers with commas between, such as 969,30,1", text);
    }
    shares.push_back(share);
    if (*end == '\0') return shares;
    at = end + 1;
  }
}

}  // namespace

DatasetSplit split_sequences(const std::string& text, int64_t num_sequences) {
  std::vector<double> shares = parse_shares(text);
  if (shares.size() > 3)
    fail("split={}: {} numbers, but there are three parts: train, valid, test", text, shares.size());
  shares.resize(3, 0.0);
  const double sum = shares[0] + shares[1] + shares[2];
  if (sum <= 0) fail("split={}: all shares are 0; give train a positive one, as in 969,30,1", text);
  std::array<SequenceRange, 3> parts;
  double cumulated = 0.0;
  int64_t begin = 0;
  for (size_t i = 0; i < 3; ++i) {
    cumulated += shares[i] / sum;
    // nearbyint rounds halves to even, as Python's round does.
    const auto end = static_cast<int64_t>(std::nearbyint(cumulated * static_cast<double>(num_sequences)));
    parts[i] = {begin, end};
    begin = end;
  }
  return {parts[0], parts[1], parts[2]};
}

}  // namespace farskip

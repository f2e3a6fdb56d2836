#include "config/nearest_name.h"

#include <algorithm>

namespace farskip {

int edit_distance(const std::string& a, const std::string& b) {
  const auto alike = [](char x, char y) { return x == y || ((x == '-' || x == '_') && (y == '-' || y == '_')); };
  // cost[i][j]: distance between the first i characters of a and the first j of b.
  std::vector<std::vector<int>> cost(a.size() + 1, std::vector<int>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        cost[i][j] = static_cast<int>(i + j);
        continue;
      }
      cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + !alike(a[i - 1], b[j - 1])});
      if (i > 1 && j > 1 && alike(a[i - 1], b[j - 2]) && alike(a[i - 2], b[j - 1])) {
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
      }
    }
  }
  return cost[a.size()][b.size()];
}

std::string nearest_name(const std::string& text, const std::vector<std::string>& names) {
  int best = std::max<int>(2, static_cast<int>(text.size()) / 3) + 1;
  std::string nearest;
  for (const std::string& name : names) {
    const int distance = edit_distance(text, name);
    if (distance < best) {
      best = distance;
      nearest = name;
    }
  }
  return nearest;
}

}  // namespace farskip

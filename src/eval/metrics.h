#pragma once
// What came of a task's items, and its figures with their standard errors.

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "eval/task.h"
#include "trace/table.h"

namespace farskip {

/// Of one item:
///   text     tokens, nats; with another model also its nats, KL, tokens with the same likeliest token, and for each
///            MoE layer tokens whose chosen experts differ
///   pairs    log-probability of good, of bad
///   choices  log-probability of each
///   answers  exact match, match of the last number, new tokens; `text` is what the model said
struct ItemResult {
  std::vector<double> values;
  std::string text = {};

  nlohmann::json to_json() const;
  static ItemResult from_json(const nlohmann::json& json);
};

/// sum(a) / sum(b) over units that are independent of each other (windows, questions), with its standard error.
struct Ratio {
  double value = 0;
  double error = 0;  ///< not a number where there is one unit
};
Ratio ratio_of(const std::vector<double>& a, const std::vector<double>& b);
/// Of a share k / n, as that of a mean of n values 0 or 1.
double binomial_error(double share, int64_t n);

/// The task's entry in the results. `drift_layers`: the layers of values behind the fifth.
nlohmann::json summarize(const EvalTask& task, const std::vector<ItemResult>& results,
                         const std::vector<int64_t>& drift_layers);

/// All tasks' figures, for people.
Table metrics_table(const nlohmann::json& tasks);

}  // namespace farskip

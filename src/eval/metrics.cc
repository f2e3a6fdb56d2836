#include "eval/metrics.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>

#include "base/error.h"

namespace farskip {
namespace {

using nlohmann::json;

/// null where it is not finite, since JSON has no such number.
json number(double value) { return std::isfinite(value) ? json(value) : json(nullptr); }

void put(json& entry, const std::string& name, const Ratio& ratio, double factor = 1) {
  entry[name] = number(ratio.value * factor);
  entry[name + "_stderr"] = number(ratio.error * factor);
}

void put_share(json& entry, const std::string& name, int64_t count, int64_t n) {
  const double share = static_cast<double>(count) / static_cast<double>(n);
  entry[name] = share;
  entry[name + "_stderr"] = number(binomial_error(share, n));
}

std::vector<double> column(const std::vector<ItemResult>& results, size_t i) {
  std::vector<double> values;
  for (const ItemResult& result : results) values.push_back(result.values.at(i));
  return values;
}

double sum(const std::vector<double>& values) {
  double total = 0;
  for (const double value : values) total += value;
  return total;
}

void summarize_text(const EvalTask& task, const std::vector<ItemResult>& results,
                    const std::vector<int64_t>& drift_layers, json& entry) {
  const auto tokens = column(results, 0), nats = column(results, 1);
  std::vector<double> bytes;
  for (const EvalItem& item : task.items) bytes.push_back(static_cast<double>(item.num_bytes));
  entry["num_tokens"] = static_cast<int64_t>(sum(tokens));
  entry["num_bytes"] = static_cast<int64_t>(sum(bytes));
  const Ratio loss = ratio_of(nats, tokens);
  put(entry, "loss", loss);
  put(entry, "perplexity", {std::exp(loss.value), std::exp(loss.value) * loss.error});
  if (sum(bytes) > 0) {
    const Ratio per_byte = ratio_of(nats, bytes);
    put(entry, "bits_per_byte", per_byte, 1 / std::numbers::ln2);
    put(entry, "byte_perplexity", {std::exp(per_byte.value), std::exp(per_byte.value) * per_byte.error});
  }
  if (results.front().values.size() < 5) return;
  const auto against = column(results, 2);
  std::vector<double> excess(nats.size());
  for (size_t i = 0; i < nats.size(); ++i) excess[i] = nats[i] - against[i];
  put(entry, "against_loss", ratio_of(against, tokens));
  put(entry, "excess_loss", ratio_of(excess, tokens));
  put(entry, "kl", ratio_of(column(results, 3), tokens));
  put(entry, "top1_agreement", ratio_of(column(results, 4), tokens));
  if (drift_layers.empty()) return;
  std::vector<double> all(results.size());
  json layers = json::array();
  for (size_t i = 0; i < drift_layers.size(); ++i) {
    const auto differing = column(results, 5 + i);
    for (size_t n = 0; n < all.size(); ++n) all[n] += differing[n] / static_cast<double>(drift_layers.size());
    layers.push_back({{"layer", drift_layers[i]}, {"drift", sum(differing) / sum(tokens)}});
  }
  put(entry, "router_drift", ratio_of(all, tokens));
  entry["router_drift_of_layers"] = layers;
}

void summarize_pairs(const EvalTask& task, const std::vector<ItemResult>& results, json& entry) {
  std::map<std::string, std::pair<int64_t, int64_t>> groups;  // right, all
  int64_t right = 0;
  for (size_t i = 0; i < results.size(); ++i) {
    const bool better = results[i].values[0] > results[i].values[1];
    right += better;
    auto& [group_right, group_all] = groups[task.items[i].group];
    group_right += better;
    ++group_all;
  }
  put_share(entry, "acc", right, std::ssize(results));
  if (groups.size() < 2) return;
  for (const auto& [name, count] : groups) {
    entry["acc_of_groups"][name] = static_cast<double>(count.first) / static_cast<double>(count.second);
  }
}

void summarize_choices(const EvalTask& task, const std::vector<ItemResult>& results, json& entry) {
  int64_t right = 0, right_norm = 0;
  for (size_t i = 0; i < results.size(); ++i) {
    const EvalItem& item = task.items[i];
    std::vector<double> values = results[i].values;
    const auto best = [&] { return std::max_element(values.begin(), values.end()) - values.begin(); };
    right += best() == item.gold;
    for (size_t k = 0; k < values.size(); ++k) values[k] /= static_cast<double>(item.lengths[k]);
    right_norm += best() == item.gold;
  }
  put_share(entry, "acc", right, std::ssize(results));
  put_share(entry, "acc_norm", right_norm, std::ssize(results));
}

void summarize_answers(const std::vector<ItemResult>& results, json& entry) {
  put_share(entry, "exact_match", static_cast<int64_t>(sum(column(results, 0))), std::ssize(results));
  put_share(entry, "last_number_match", static_cast<int64_t>(sum(column(results, 1))), std::ssize(results));
  entry["num_new_tokens"] = static_cast<int64_t>(sum(column(results, 2)));
}

std::string figure(const json& value) { return value.is_null() ? "" : fmt::format("{:.5g}", value.get<double>()); }

}  // namespace

json ItemResult::to_json() const {
  if (text.empty()) return values;
  return {{"values", values}, {"text", text}};
}

ItemResult ItemResult::from_json(const json& json) {
  if (json.is_array()) return {json.get<std::vector<double>>(), {}};
  return {json.at("values").get<std::vector<double>>(), json.at("text").get<std::string>()};
}

Ratio ratio_of(const std::vector<double>& a, const std::vector<double>& b) {
  FARSKIP_CHECK(a.size() == b.size() && !a.empty());
  const auto n = static_cast<double>(a.size());
  const double total = sum(b);
  Ratio ratio{sum(a) / total, std::nan("")};
  if (a.size() < 2) return ratio;
  double squares = 0;
  for (size_t i = 0; i < a.size(); ++i) squares += std::pow(a[i] - ratio.value * b[i], 2);
  ratio.error = std::sqrt(squares * n / (n - 1)) / total;
  return ratio;
}

double binomial_error(double share, int64_t n) {
  return n < 2 ? std::nan("") : std::sqrt(share * (1 - share) / static_cast<double>(n - 1));
}

json summarize(const EvalTask& task, const std::vector<ItemResult>& results, const std::vector<int64_t>& drift_layers) {
  FARSKIP_CHECK(results.size() == task.items.size() && !results.empty());
  json entry = {{"name", task.name}, {"kind", to_string(task.kind)}, {"num_items", results.size()}};
  if (task.num_truncated > 0) entry["num_truncated"] = task.num_truncated;
  switch (task.kind) {
    case TaskKind::text:
      summarize_text(task, results, drift_layers, entry);
      break;
    case TaskKind::pairs:
      summarize_pairs(task, results, entry);
      break;
    case TaskKind::choices:
      summarize_choices(task, results, entry);
      break;
    case TaskKind::answers:
      summarize_answers(results, entry);
      break;
  }
  return entry;
}

Table metrics_table(const json& tasks) {
  Table table{{"task", "kind", "items", "figure", "value", "standard error"}, {}, ""};
  for (const json& task : tasks) {
    if (!table.rows.empty()) table.rows.emplace_back();
    bool first = true;
    for (const char* name :
         {"loss", "perplexity", "bits_per_byte", "byte_perplexity", "against_loss", "excess_loss", "kl",
          "top1_agreement", "router_drift", "acc", "acc_norm", "exact_match", "last_number_match"}) {
      if (!task.contains(name)) continue;
      table.rows.push_back({first ? task.at("name").get<std::string>() : "",
                            first ? task.at("kind").get<std::string>() : "",
                            first ? std::to_string(task.at("num_items").get<int64_t>()) : "", name,
                            figure(task.at(name)), figure(task.at(std::string(name) + "_stderr"))});
      first = false;
    }
  }
  return table;
}

}  // namespace farskip

#include "train/run_history.h"

#include <algorithm>
#include <cmath>

#include "base/stats.h"

namespace farskip {

void Curve::put(const Piece& piece) {
  if (pieces_.empty() || pieces_.back().index != piece.index) {
    pieces_.push_back(piece);
    return;
  }
  Piece& last = pieces_.back();
  if (piece.low.second < last.low.second) last.low = piece.low;
  if (piece.high.second > last.high.second) last.high = piece.high;
}

void Curve::add(int64_t x, double y) {
  if (!std::isfinite(y)) return;
  last_ = y;
  put({x / width_, {x, y}, {x, y}});
  if (pieces_.size() <= max_pieces) return;
  width_ *= 2;
  for (Piece& piece : std::exchange(pieces_, {})) {
    piece.index = piece.low.first / width_;
    put(piece);
  }
}

std::vector<std::pair<double, double>> Curve::points() const {
  std::vector<std::pair<double, double>> points;
  for (const Piece& piece : pieces_) {
    const auto [first, second] = std::minmax(piece.low, piece.high);  // by x
    points.emplace_back(first);
    if (second.first != first.first) points.emplace_back(second);
  }
  return points;
}

namespace {

std::optional<double> number(const nlohmann::json& object, const std::string& key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number() ? std::optional(found->get<double>()) : std::nullopt;
}

}  // namespace

const Curve& RunHistory::curve(const std::string& name) const {
  static const Curve none;
  const auto found = curves_.find(name);
  return found == curves_.end() ? none : found->second;
}

void RunHistory::add(const nlohmann::json& line) {
  if (!line.is_object()) return;
  const auto iteration = number(line, "iteration");
  if (!iteration || *iteration < 0) return;
  const auto x = static_cast<int64_t>(*iteration);
  if (const auto event = line.find("event"); event != line.end() && event->is_string()) {
    add_event(x, event->get<std::string>());
  }
  if (const auto loss = number(line, "validation_loss")) curves_["validation_loss"].add(x, *loss);
  if (const auto held_out = line.find("held_out"); held_out != line.end() && held_out->is_object()) {
    for (const char* name : {"kl", "top1_agreement", "router_drift"}) {
      if (const auto value = number(*held_out, name)) curves_[std::string("held_out.") + name].add(x, *value);
    }
  }
  if (!line.contains("lm_loss")) return;
  iteration_ = x;
  for (const char* name : {"lm_loss", "grad_norm", "learning_rate", "step_ms", "load_balancing_loss", "z_loss", "kl",
                           "cross_entropy", "router_drift", "hidden", "router"}) {
    if (const auto value = number(line, name)) curves_[name].add(x, *value);
  }
  const auto batch_size = number(line, "batch_size"), step_ms = number(line, "step_ms");
  if (batch_size && step_ms) {
    curves_["tokens_per_second"].add(x, *batch_size * static_cast<double>(seq_length_) / *step_ms * 1e3);
  }
  if (const auto reason = line.find("skipped"); reason != line.end() && reason->is_string()) {
    ++num_skipped_;
    add_event(x, "changed nothing: " + reason->get<std::string>());
  }
  if (const auto layers = line.find("experts"); layers != line.end() && layers->is_array()) add_experts(*layers);
}

void RunHistory::add_experts(const nlohmann::json& layers) {
  std::vector<double> over_mean, entropy, unused;
  for (const auto& layer : layers) {
    if (!layer.is_object()) continue;
    const auto most = number(layer, "max_load"), usual = number(layer, "mean_load");
    if (most && usual && *usual > 0) over_mean.push_back(*most / *usual);
    if (const auto value = number(layer, "entropy")) entropy.push_back(*value);
    if (const auto value = number(layer, "unused")) unused.push_back(*value);
  }
  const auto add = [&](const std::string& name, double value) { curves_[name].add(iteration_, value); };
  if (!over_mean.empty()) {
    add("load_max_over_mean.worst", *std::max_element(over_mean.begin(), over_mean.end()));
    add("load_max_over_mean.mean", mean(over_mean));
  }
  if (!entropy.empty()) {
    add("entropy.worst", *std::min_element(entropy.begin(), entropy.end()));
    add("entropy.mean", mean(entropy));
  }
  if (!unused.empty()) add("unused.worst", *std::max_element(unused.begin(), unused.end()));
}

void RunHistory::add_event(int64_t iteration, const std::string& text) {
  events_.push_back({iteration, text});
  if (events_.size() > max_events) events_.pop_front();
}

}  // namespace farskip

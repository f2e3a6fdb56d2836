#pragma once
// What a report draws of a run, gathered from the lines of its log: new ones, and those that a resumed run reads back.

#include <cstdint>
#include <deque>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace farskip {

/// A curve of bounded size however long the run: of each of at most max_pieces stretches of equal length its lowest and
/// its highest point, so that spikes stay.
class Curve {
 public:
  static constexpr size_t max_pieces = 700;

  /// Points come in the order of x; those that are not finite are left out. REQUIRES: x >= 0.
  void add(int64_t x, double y);
  /// In the order of x; at most 2 * max_pieces.
  std::vector<std::pair<double, double>> points() const;
  /// The newest; nothing before the first.
  std::optional<double> last() const { return last_; }

 private:
  using Point = std::pair<int64_t, double>;
  struct Piece {
    int64_t index;  ///< x / width_ of its points
    Point low, high;
  };
  void put(const Piece& piece);

  int64_t width_ = 1;
  std::vector<Piece> pieces_;
  std::optional<double> last_;
};

class RunHistory {
 public:
  struct Event {
    int64_t iteration = 0;
    std::string text;
  };
  static constexpr size_t max_events = 100;

  explicit RunHistory(int64_t seq_length) : seq_length_(seq_length) {}

  /// A line of log_file: a step, an evaluation or an event. What it lacks, or has not as a number, is left out.
  void add(const nlohmann::json& line);

  /// By the key of the log ("lm_loss"), and those that follow from it: tokens_per_second; of the MoE layers
  /// load_max_over_mean.worst and .mean, entropy.worst and .mean, unused.worst; of a distillation held_out.kl and its
  /// like. Empty where no line had it.
  const Curve& curve(const std::string& name) const;
  int64_t iteration() const { return iteration_; }  ///< of the last step; 0: none
  /// The newest max_events, oldest first: steps that the guard left out, and what else the log calls an event.
  const std::deque<Event>& events() const { return events_; }
  int64_t num_skipped() const { return num_skipped_; }

 private:
  void add_experts(const nlohmann::json& layers);
  void add_event(int64_t iteration, const std::string& text);

  int64_t seq_length_;
  int64_t iteration_ = 0;
  std::map<std::string, Curve> curves_;
  std::deque<Event> events_;
  int64_t num_skipped_ = 0;
};

}  // namespace farskip

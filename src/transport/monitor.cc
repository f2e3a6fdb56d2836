#include "transport/monitor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "transport/clock.h"

namespace farskip {
namespace {

using Json = nlohmann::json;
using Seconds = std::chrono::duration<double>;

}  // namespace

struct Monitor::State {
  struct Position {
    int64_t number = -1;
    std::string name;
  };

  struct Peer {
    int64_t beat = -1;
    double changed_us = 0;
    std::string error;
    std::map<std::string, Position> positions;
  };

  int rank = 0;
  BeatStore store;
  std::shared_ptr<Health> health;
  TransportOptions options;

  // Guarded by health->mutex, and health->changed tells of changes.
  std::vector<Peer> peers;  ///< by rank; the own entry is what is written
  double asking_us = 0;     ///< since when the thread has been waiting for the store; 0: it is not
  double lost_us = 0;       ///< when the store broke; 0: it works
  bool error_written = false;
  bool stop = false;
  bool ended = false;

  /// The own beat. REQUIRES: mutex held.
  std::string compose() {
    auto& own = peers[rank];
    own.error = health->failure;
    Json at = Json::object();
    for (const auto& [group, position] : own.positions) at[group] = {position.number, position.name};
    return Json{{"beat", ++own.beat}, {"error", own.error}, {"at", at}}.dump();
  }

  /// REQUIRES: mutex held.
  void take(const std::vector<std::string>& beats) {
    for (int r = 0; r < static_cast<int>(beats.size()); ++r) {
      auto& peer = peers[r];
      const auto json = Json::parse(beats[r]);
      if (r == rank || json["beat"] == peer.beat) continue;
      peer.beat = json["beat"];
      peer.changed_us = now_us();
      peer.error = json["error"];
      for (const auto& [group, at] : json["at"].items()) peer.positions[group] = {at[0], at[1]};
      if (!peer.error.empty() && health->failure.empty())
        health->fail_all(fmt::format("{} (seen by rank {})", peer.error, r));
    }
  }

  /// As Monitor::silence_s. REQUIRES: mutex held.
  double silence_s(int of) const {
    if (of == rank) return 0;
    const double now = now_us();
    const double asked_us = asking_us > 0 ? asking_us : now;
    if (of == 0) {
      if (lost_us > 0) return (now - std::min(lost_us, peers[0].changed_us)) * 1e-6;
      return (now - peers[0].changed_us) * 1e-6;
    }
    // Without the store nothing is known about the others, except that they were alive when it last answered.
    const double known_us = lost_us > 0 ? lost_us : asked_us;
    return std::max(0.0, known_us - peers[of].changed_us) * 1e-6;
  }

  double silence_limit_s() const { return std::max(1.0, 5 * options.heartbeat_s); }
};

Monitor::Monitor(int rank, int size, BeatStore store, std::shared_ptr<Health> health, const TransportOptions& options)
    : state_(std::make_shared<State>()) {
  state_->rank = rank;
  state_->store = std::move(store);
  state_->health = std::move(health);
  state_->options = options;
  state_->peers.resize(size);
  for (auto& peer : state_->peers) peer.changed_us = now_us();
  thread_ = std::thread([state = state_] { watch(state); });
}

Monitor::~Monitor() {
  auto& health = *state_->health;
  std::unique_lock lock(health.mutex);
  const bool failed = !health.failure.empty();
  if (failed) health.changed.wait_for(lock, Seconds(1), [&] { return state_->error_written || state_->lost_us > 0; });
  // The store dies with the process of rank 0: leave the others time to read why.
  if (failed && state_->rank == 0 && state_->peers.size() > 1)
    health.changed.wait_for(lock, Seconds(4 * state_->options.heartbeat_s), [] { return false; });
  state_->stop = true;
  health.changed.notify_all();
  const bool ended = health.changed.wait_for(lock, Seconds(1), [&] { return state_->ended; });
  lock.unlock();
  if (ended) {
    thread_.join();
  } else {
    thread_.detach();  // it hangs in the store; it owns all that it touches
  }
}

void Monitor::launched(const std::string& group, int64_t number, const std::string& name) {
  const std::lock_guard lock(state_->health->mutex);
  state_->peers[state_->rank].positions[group] = {number, name};
}

double Monitor::silence_s(int rank) {
  const std::lock_guard lock(state_->health->mutex);
  return state_->silence_s(rank);
}

std::string Monitor::blame(const std::vector<int>& ranks, const std::string& group, int64_t number) {
  auto& health = *state_->health;
  std::unique_lock lock(health.mutex);
  std::vector<std::string> found;
  const auto look = [&] {
    found.clear();
    for (const int r : ranks)
      if (state_->silence_s(r) > state_->silence_limit_s())
        found.push_back(fmt::format("rank {} is gone (no heartbeat for {:.1f} s)", r, state_->silence_s(r)));
    return !found.empty() || !health.failure.empty();
  };
  const double until_us = now_us() + (state_->silence_limit_s() + 0.5) * 1e6;
  while (!look() && now_us() < until_us) health.changed.wait_for(lock, Seconds(0.05));
  if (found.empty()) {
    for (const int r : ranks) {
      if (r == state_->rank) continue;
      const auto& position = state_->peers[r].positions[group];
      if (position.number >= number) continue;
      found.push_back(position.number < 0
                          ? fmt::format("rank {} is alive, but has launched nothing here", r)
                          : fmt::format("rank {} is alive, but its last launch here was '{}'", r, position.name));
    }
  }
  if (found.empty())
    return fmt::format("all ranks ({}) are alive and launched it; is the network down?", fmt::join(ranks, ", "));
  return fmt::format("{}", fmt::join(found, "; "));
}

void Monitor::watch(const std::shared_ptr<State>& state) {
  auto& health = *state->health;
  std::unique_lock lock(health.mutex);
  try {
    while (!state->stop) {
      const auto beat = state->compose();
      const bool with_error = !health.failure.empty();
      state->asking_us = now_us();
      lock.unlock();
      state->store.write(beat);
      const auto beats = state->store.read();
      lock.lock();
      state->asking_us = 0;
      state->take(beats);
      if (with_error && !state->error_written) {
        state->error_written = true;
        health.changed.notify_all();
      }
      health.changed.wait_for(lock, Seconds(state->options.heartbeat_s),
                              [&] { return state->stop || (!health.failure.empty() && !state->error_written); });
    }
  } catch (const std::exception& error) {
    if (!lock.owns_lock()) lock.lock();
    if (!state->stop) state->lost_us = now_us();
  }
  state->ended = true;
  health.changed.notify_all();
}

}  // namespace farskip

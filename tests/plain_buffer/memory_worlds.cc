#include "tests/plain_buffer/memory_worlds.h"

#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>

#include "base/error.h"
#include "transport/loopback.h"
#include "transport/queued.h"

namespace farskip::testing {
namespace {

/// What the ranks of one communicator have sent each other and not yet received.
class Mailboxes {
 public:
  explicit Mailboxes(int size) : size_(size), boxes_(size * size) {}

  /// The blocking all-to-all of one rank.
  at::Tensor exchange(int rank, double timeout_s, const at::Tensor& rows, const std::vector<int64_t>& send_rows,
                      const std::vector<int64_t>& recv_rows) {
    const auto sent = rows.clone().split_with_sizes(send_rows);
    std::vector<at::Tensor> received;
    {
      std::unique_lock lock(mutex_);
      for (int to = 0; to < size_; ++to) boxes_[rank * size_ + to].push_back(sent[to]);
      changed_.notify_all();
      for (int from = 0; from < size_; ++from) {
        auto& box = boxes_[from * size_ + rank];
        if (!changed_.wait_for(lock, std::chrono::duration<double>(timeout_s), [&] { return !box.empty(); }))
          fail("timed out");
        received.push_back(std::move(box.front()));
        box.pop_front();
        if (received.back().size(0) != recv_rows[from]) fail("unexpected number of rows");
      }
    }
    return at::cat(received);
  }

 private:
  int size_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::deque<at::Tensor>> boxes_;  ///< [from * size + to]
};

/// What the ranks of a run share.
struct Network {
  std::mutex mutex;
  std::vector<std::string> beats;
  struct Forming {
    std::shared_ptr<Mailboxes> boxes;
    size_t num_joined = 0;
  };
  std::map<std::pair<std::string, std::vector<int>>, Forming> forming;

  std::shared_ptr<Mailboxes> join(const std::string& name, const std::vector<int>& ranks) {
    const std::lock_guard lock(mutex);
    auto& entry = forming[{name, ranks}];
    if (!entry.boxes) entry.boxes = std::make_shared<Mailboxes>(static_cast<int>(ranks.size()));
    const auto boxes = entry.boxes;
    if (++entry.num_joined == ranks.size()) forming.erase({name, ranks});
    return boxes;
  }
};

class MemoryWorld final : public World {
 public:
  MemoryWorld(int rank, int size, const std::shared_ptr<Network>& network, const TransportOptions& options)
      : rank_(rank), size_(size), network_(network), options_(options) {
    BeatStore store;
    store.write = [network, rank](const std::string& beat) {
      const std::lock_guard lock(network->mutex);
      network->beats[rank] = beat;
    };
    store.read = [network] {
      const std::lock_guard lock(network->mutex);
      return network->beats;
    };
    monitor_ = std::make_shared<Monitor>(rank, size, store, health_, options);
  }
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::unique_ptr<Transport> group(const std::vector<int>& ranks, const std::string& name) override {
    const int own = position_in(ranks, *this, name);
    if (ranks.size() == 1) return make_single(name);
    return make_queued({name, ranks, own, health_, monitor_, options_},
                       [boxes = network_->join(name, ranks), own, timeout_s = options_.timeout_s](
                           const at::Tensor& rows, const std::vector<int64_t>& send, const std::vector<int64_t>& recv) {
                         return boxes->exchange(own, timeout_s, rows, send, recv);
                       });
  }
  void abort(const std::string& message) override { health_->abort(message); }

 private:
  int rank_;
  int size_;
  std::shared_ptr<Network> network_;
  TransportOptions options_;
  std::shared_ptr<Health> health_ = std::make_shared<Health>();
  std::shared_ptr<Monitor> monitor_;
};

}  // namespace

Worlds make_memory_worlds(int num_ranks, const TransportOptions& options) {
  const auto network = std::make_shared<Network>();
  network->beats.assign(num_ranks, R"({"beat": -1, "error": "", "at": {}})");
  Worlds worlds;
  for (int r = 0; r < num_ranks; ++r) worlds.push_back(std::make_unique<MemoryWorld>(r, num_ranks, network, options));
  return worlds;
}

Worlds make_worlds(const std::string& kind, int num_ranks, const TransportOptions& options) {
  return kind == "loopback" ? make_loopback(num_ranks, options) : make_memory_worlds(num_ranks, options);
}

}  // namespace farskip::testing

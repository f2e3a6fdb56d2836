#include "transport/c10d.h"

#include <arpa/inet.h>
#include <fmt/ranges.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#ifdef USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include "base/error.h"
#include "transport/cause.h"
#include "transport/clock.h"
#include "transport/device_flight.h"
#include "transport/io_priority.h"
#include "transport/queued.h"

namespace farskip {
namespace {

using StorePtr = c10::intrusive_ptr<c10d::Store>;
using BackendPtr = c10::intrusive_ptr<c10d::Backend>;

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1e3));
}

/// The address of this machine on the way to `host`: peers reach us there, whatever this machine's name resolves to.
std::string own_address(const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), "9", &hints, &found) != 0 || found == nullptr)
    fail("cannot resolve the address '{}' of rank 0; check MASTER_ADDR", host);
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> target(found, freeaddrinfo);
  const int socket_fd = socket(target->ai_family, SOCK_DGRAM, 0);
  sockaddr_storage own{};
  socklen_t length = sizeof(own);
  char text[NI_MAXHOST] = "";
  const bool known =
      socket_fd >= 0 && connect(socket_fd, target->ai_addr, target->ai_addrlen) == 0 &&
      getsockname(socket_fd, reinterpret_cast<sockaddr*>(&own), &length) == 0 &&
      getnameinfo(reinterpret_cast<sockaddr*>(&own), length, text, sizeof(text), nullptr, 0, NI_NUMERICHOST) == 0;
  if (socket_fd >= 0) close(socket_fd);
  if (!known) fail("no route to '{}', the address of rank 0", host);
  return text;
}

BackendPtr make_backend(const std::string& kind, const StorePtr& store, int rank, int size, const std::string& address,
                        const TransportOptions& options) {
#ifdef USE_C10D_NCCL
  if (kind == "nccl") {
    auto nccl = c10d::ProcessGroupNCCL::Options::create(/*is_high_priority_stream=*/true);
    nccl->timeout = milliseconds(options.timeout_s);
    return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, nccl);
  }
#endif
  const RealTimeChildren real_time;  // Gloo's own threads
  auto gloo = c10d::ProcessGroupGloo::Options::create(milliseconds(options.timeout_s));
  gloo->threads = 1;
  gloo->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(address));
  return c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, size, gloo);
}

/// One all-to-all; on a CPU it blocks, on a device the current stream waits. Rows travel as bytes, so that any dtype
/// does.
at::Tensor exchange(c10d::Backend& backend, const at::Tensor& rows, std::vector<int64_t> send_rows,
                    std::vector<int64_t> recv_rows) {
  auto shape = rows.sizes().vec();
  shape[0] = offsets_of(recv_rows).back();
  auto result = at::empty(shape, rows.options());
  const int64_t row_bytes = c10::multiply_integers(rows.sizes().slice(1)) * static_cast<int64_t>(rows.element_size());
  for (auto& count : send_rows) count *= row_bytes;
  for (auto& count : recv_rows) count *= row_bytes;
  auto sent = rows.view({rows.numel()}).view(at::kByte);
  auto received = result.view({result.numel()}).view(at::kByte);
  backend.alltoall_base(received, sent, recv_rows, send_rows)->wait();
  return result;
}

/// Collectives on a device: no worker thread, the communication stream is the queue.
class DeviceTransport final : public Transport {
 public:
  DeviceTransport(GroupContext context, BackendPtr backend)
      : Transport(context.rank, static_cast<int>(context.ranks.size()), context.name),
        context_(std::move(context)),
        backend_(std::move(backend)),
        lane_(make_device_lane(at::kCUDA)) {}

  Pending launch(Collective op) override {
    if (const auto failure = context_.health->first_error(); !failure.empty()) throw Error(failure);
    if (op.kind == CollectiveKind::barrier)
      op.input = at::zeros({size()}, at::TensorOptions(at::kByte).device(at::kCUDA));
    auto report = report_for(op);
    context_.monitor->launched(name(), num_launched_, op.name);
    try {
      const auto blocking = [this](const at::Tensor& rows, const std::vector<int64_t>& send,
                                   const std::vector<int64_t>& recv) { return exchange(*backend_, rows, send, recv); };
      auto flight = launch_on_lane(
          lane_, [&] { return run_over_exchange(op, rank(), blocking); }, op.pause_us,
          [health = context_.health] { return health->first_error(); });
      ++num_launched_;
      if (op.on_started) op.on_started(report.launched_us);
      return {std::move(flight), std::move(report)};
    } catch (const std::exception& error) {
      context_.health->abort(context_.explain(op.name, num_launched_, first_line(error)));
      throw Error(context_.health->first_error());
    }
  }
  void abort(const std::string& message) override { context_.health->abort(message); }
  std::string failure() override { return context_.health->first_error(); }

 private:
  GroupContext context_;
  BackendPtr backend_;
  std::shared_ptr<DeviceLane> lane_;
  int64_t num_launched_ = 0;
};

class C10dWorld final : public World {
 public:
  /// `store` for forming groups; `beats`, another connection to it, for the heartbeats alone.
  C10dWorld(int rank, int size, StorePtr store, StorePtr beats, std::string backend, std::string address,
            const TransportOptions& options)
      : rank_(rank),
        size_(size),
        store_(std::move(store)),
        backend_(std::move(backend)),
        address_(std::move(address)),
        options_(options) {
    beats->set(beat_key(rank), R"({"beat": -1, "error": "", "at": {}})");
    wait_for_all(beats);
    std::vector<std::string> keys;
    for (int r = 0; r < size; ++r) keys.push_back(beat_key(r));
    BeatStore store_of_beats;
    store_of_beats.write = [beats, own = beat_key(rank)](const std::string& beat) { beats->set(own, beat); };
    store_of_beats.read = [beats, keys] {
      std::vector<std::string> result;
      for (const auto& bytes : beats->multiGet(keys)) result.emplace_back(bytes.begin(), bytes.end());
      return result;
    };
    monitor_ = std::make_shared<Monitor>(rank, size, store_of_beats, health_, options);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  std::unique_ptr<Transport> group(const std::vector<int>& ranks, const std::string& name) override {
    const int own = position_in(ranks, *this, name);
    if (ranks.size() == 1 && backend_ == "gloo") return make_single(name);
    const auto key = fmt::format("{}/{}", name, fmt::join(ranks, ","));
    const auto prefix = fmt::format("group/{}/{}", key, num_formed_[key]++);
    GroupContext context{name, ranks, own, health_, monitor_, options_};
    BackendPtr backend;
    try {
      monitor_->launched(prefix, 0, "forming");
      backend = make_backend(backend_, c10::make_intrusive<c10d::PrefixStore>(prefix, store_), own,
                             static_cast<int>(ranks.size()), address_, options_);
    } catch (const std::exception& error) {
      health_->abort(fmt::format("group '{}' could not be formed: {} ({})", name, monitor_->blame(ranks, prefix, 0),
                                 first_line(error)));
      throw Error(health_->first_error());
    }
    if (backend_ != "gloo") return std::make_unique<DeviceTransport>(std::move(context), std::move(backend));
    return make_queued(std::move(context),
                       [backend](const at::Tensor& rows, const std::vector<int64_t>& send,
                                 const std::vector<int64_t>& recv) { return exchange(*backend, rows, send, recv); });
  }

  void abort(const std::string& message) override { health_->abort(message); }

 private:
  static std::string beat_key(int rank) { return fmt::format("beat/{}", rank); }

  void wait_for_all(const StorePtr& store) const {
    const double until_us = now_us() + options_.timeout_s * 1e6;
    std::vector<int> absent;
    do {
      absent.clear();
      for (int r = 0; r < size_; ++r)
        if (!store->check({beat_key(r)})) absent.push_back(r);
      if (absent.empty()) return;
      sleep_until_us(now_us() + 20e3);
    } while (now_us() < until_us);
    fail("rank {} waited {} s for rank {} of {} to start; did it fail, or can it not reach rank 0?", rank_,
         options_.timeout_s, fmt::join(absent, ", "), size_);
  }

  int rank_;
  int size_;
  StorePtr store_;
  std::string backend_;
  std::string address_;
  TransportOptions options_;
  std::shared_ptr<Health> health_ = std::make_shared<Health>();
  std::shared_ptr<Monitor> monitor_;
  std::map<std::string, int> num_formed_;
};

StorePtr connect_store(const LaunchInfo& info, bool hosts, const TransportOptions& options) {
  c10d::TCPStoreOptions store;
  store.port = info.port;
  store.isServer = hosts;
  store.waitWorkers = false;
  store.timeout = milliseconds(options.timeout_s);
  try {
    return c10::make_intrusive<c10d::TCPStore>(info.host, store);
  } catch (const std::exception& error) {
    if (hosts)
      fail("rank 0 cannot open the store at {}:{} ({}); is the port taken? Set MASTER_PORT", info.host, info.port,
           first_line(error));
    fail("rank {} cannot reach rank 0's store at {}:{} within {} s ({}); did rank 0 start?", info.rank, info.host,
         info.port, options.timeout_s, first_line(error));
  }
}

}  // namespace

bool c10d_available(const std::string& backend) {
#ifdef USE_C10D_NCCL
  if (backend == "nccl") return at::hasCUDA();
#endif
  return backend == "gloo";
}

std::unique_ptr<World> make_c10d(const LaunchInfo& info, const TransportOptions& options, const std::string& backend) {
  if (!c10d_available(backend))
    fail("backend '{}' is not available with this libtorch on this machine; available: gloo{}", backend,
         c10d_available("nccl") ? ", nccl" : "");
  auto store = connect_store(info, info.rank == 0 && info.hosts_store, options);
  auto beats = connect_store(info, false, options);
  return std::make_unique<C10dWorld>(info.rank, info.size, std::move(store), std::move(beats), backend,
                                     own_address(info.host), options);
}

Worlds make_gloo_threads(int num_ranks, const TransportOptions& options) {
  if (num_ranks < 1) fail("gloo: {} ranks; needs at least one", num_ranks);
  const StorePtr store = c10::make_intrusive<c10d::HashStore>();
  Worlds worlds(num_ranks);
  std::vector<std::thread> forming;  // each world waits for the others
  for (int r = 0; r < num_ranks; ++r)
    forming.emplace_back(
        [&, r] { worlds[r] = std::make_unique<C10dWorld>(r, num_ranks, store, store, "gloo", "127.0.0.1", options); });
  for (auto& thread : forming) thread.join();
  return worlds;
}

}  // namespace farskip

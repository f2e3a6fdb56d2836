#include "train/launch.h"

#include <ATen/Parallel.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/log.h"
#include "transport/c10d.h"
#include "transport/loopback.h"
#include "transport/rendezvous.h"
#include "transport/spawn.h"

namespace farskip {
namespace {

/// This process's own command line, the program by its full path.
std::vector<std::string> command_line() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> arguments;
  for (std::string argument; std::getline(file, argument, '\0');) arguments.push_back(argument);
  if (arguments.empty()) fail("/proc/self/cmdline cannot be read; start the ranks with torchrun, mpirun or srun");
  arguments[0] = std::filesystem::read_symlink("/proc/self/exe");
  return arguments;
}

void run_as_rank(std::unique_ptr<World> world, const LaunchOptions& options,
                 const std::function<void(RankContext&)>& body) {
  auto link = std::make_shared<Link>(options.link);
  const auto linked = with_link(std::move(world), link);
  set_log_rank(linked->size() > 1 ? linked->rank() : -1);
  RankContext context{*linked, link};
  body(context);
}

}  // namespace

LaunchOptions launch_options(const TrainConfig& config, int num_ranks) {
  LaunchOptions options;
  options.num_ranks = num_ranks;
  options.transport = config.transport;
  options.link = LinkSpec::parse(config.link);
  options.timeout_s = config.timeout;
  return options;
}

TransportKind transport_of(const std::string& name) {
  if (name == "loopback") return TransportKind::loopback;
  if (name == "gloo") return TransportKind::gloo;
  return name == "nccl" ? TransportKind::nccl : TransportKind::automatic;
}

bool launched_as_rank() { return detect_launch().size > 1; }

int world_size(const LaunchOptions& options) {
  const int launched = detect_launch().size;
  return launched > 1 ? launched : options.num_ranks;
}

Layout layout_of_ranks(const std::string& text, int num_ranks, LaunchOptions& options,
                       const std::function<Layout(int)>& otherwise) {
  const Layout given = Layout::parse(text);
  options.num_ranks = num_ranks > 0 ? num_ranks : given.world();
  const int ranks = world_size(options);
  const Layout layout = text.empty() ? otherwise(ranks) : given;
  if (layout.world() != ranks) {
    fail("--layout {} is for {} ranks, and there are {}", text.empty() ? layout.to_string() : text, layout.world(),
         ranks);
  }
  return layout;
}

int run_on_ranks(const LaunchOptions& options, const std::function<void(RankContext&)>& body) {
  const LaunchInfo info = detect_launch();
  TransportOptions transport;
  transport.timeout_s = options.timeout_s;
  if (info.size > 1) {
    if (options.transport == TransportKind::loopback) {
      fail(
          "transport=loopback runs ranks as threads of one process, but {} started {} processes; use --nproc, or "
          "transport=gloo or nccl",
          info.source, info.size);
    }
    const bool nccl = options.transport == TransportKind::nccl ||
                      (options.transport == TransportKind::automatic && c10d_available("nccl"));
    if (info.local_size > 1) at::set_num_threads(std::max(1, at::get_num_threads() / info.local_size));
    run_as_rank(make_c10d(info, transport, nccl ? "nccl" : "gloo"), options, body);
    return 0;
  }
  const bool processes = options.transport == TransportKind::gloo || options.transport == TransportKind::nccl;
  if (processes && options.num_ranks > 1) {
    return spawn_ranks(options.num_ranks, command_line(),
                       {.silent_grace_s = options.timeout_s + 2, .ends_by_signal = options.ends_by_signal});
  }
  run_ranks(
      options.num_ranks,
      [&](World& world) {
        auto link = std::make_shared<Link>(options.link);
        // The wrapped world borrows the thread's.
        struct Borrowed : World {
          explicit Borrowed(World& w) : inner(w) {}
          int rank() const override { return inner.rank(); }
          int size() const override { return inner.size(); }
          std::unique_ptr<Transport> group(const std::vector<int>& ranks, const std::string& name) override {
            return inner.group(ranks, name);
          }
          void abort(const std::string& message) override { inner.abort(message); }
          World& inner;
        };
        run_as_rank(std::make_unique<Borrowed>(world), options, body);
      },
      transport);
  return 0;
}

}  // namespace farskip

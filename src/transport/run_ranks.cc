#include <ATen/Parallel.h>

#include <algorithm>
#include <exception>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "transport/cause.h"
#include "transport/loopback.h"

namespace farskip {

void run_ranks(Worlds& worlds, const std::function<void(World&)>& body) {
  const int num_threads = at::get_num_threads();
  const int per_rank = std::max(1, num_threads / static_cast<int>(worlds.size()));
  std::mutex mutex;
  std::exception_ptr first;
  std::vector<std::thread> threads;
  for (auto& world : worlds)
    threads.emplace_back([&, &world = *world] {
      set_log_rank(world.rank());
      at::set_num_threads(per_rank);
      try {
        body(world);
      } catch (const std::exception& error) {
        {
          const std::lock_guard lock(mutex);
          if (!first) first = std::current_exception();
        }
        world.abort(text_of(error));
      }
    });
  for (auto& thread : threads) thread.join();
  at::set_num_threads(num_threads);
  if (first) std::rethrow_exception(first);
}

void run_ranks(int num_ranks, const std::function<void(World&)>& body, const TransportOptions& options) {
  auto worlds = make_loopback(num_ranks, options);
  run_ranks(worlds, body);
}

}  // namespace farskip

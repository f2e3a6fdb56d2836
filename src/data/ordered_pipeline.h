#pragma once
// Work on a stream by several threads, with the results in the order of the stream.

#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <future>
#include <optional>
#include <utility>

namespace farskip {

/// Calls consume(work(item)) for every item of produce() until it returns none. `work` runs on up to num_workers
/// threads and depends on its item alone; `produce` and `consume` run on the caller's thread, in order. So the outcome
/// is the same for any num_workers, errors too: the first one in the order of the items is thrown, with all items
/// before it consumed. At most num_workers items are under way, and one result waits. REQUIRES: num_workers >= 1.
template <typename Item, typename Result>
void ordered_pipeline(const std::function<std::optional<Item>()>& produce, const std::function<Result(Item)>& work,
                      const std::function<void(Result)>& consume, int num_workers) {
  std::deque<std::future<Result>> under_way;
  std::exception_ptr produce_error;
  bool more = true;
  const auto refill = [&] {
    while (more && under_way.size() < static_cast<size_t>(num_workers)) {
      try {
        std::optional<Item> item = produce();
        more = item.has_value();
        if (more) under_way.push_back(std::async(std::launch::async, work, std::move(*item)));
      } catch (...) {
        produce_error = std::current_exception();
        more = false;
      }
    }
  };
  for (refill(); !under_way.empty();) {
    Result result = under_way.front().get();
    under_way.pop_front();
    refill();  // the workers go on while this thread consumes
    consume(std::move(result));
  }
  if (produce_error) std::rethrow_exception(produce_error);
}

}  // namespace farskip

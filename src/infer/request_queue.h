#pragma once
// Requests on their way from any thread to the engine's. Bounded; closed when the engine ends.

#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <set>

#include "infer/engine.h"

namespace farskip {

/// A request and what became of it.
struct EngineRequest {
  GenerationRequest request;
  GenerationService::OnEvent on_event;
  std::vector<TokenLogprobs> of_prompt;  ///< until they are told
};

class RequestQueue {
 public:
  /// At most `max_unfinished` requests that have not ended.
  explicit RequestQueue(int64_t max_unfinished) : max_unfinished_(max_unfinished) {}

  /// From any thread. Its number, which grows from request to request. Throws Overloaded, and Error once closed.
  uint64_t push(EngineRequest request);
  void cancel(uint64_t id);
  void stop();
  int64_t num_queued() const;

  /// The engine's: what came since.
  struct Arrivals {
    std::map<uint64_t, EngineRequest> requests;
    std::set<uint64_t> cancelled;  ///< some may have ended
    bool stopping = false;
  };
  Arrivals take();
  /// Returns when there is something to take, or after `seconds`; absent: whenever that is.
  void wait(std::optional<double> seconds);
  /// A request that was taken has ended.
  void ended();
  /// push() throws Error(reason) from now on; what had not been taken.
  std::map<uint64_t, EngineRequest> close(const std::string& reason);

 private:
  const int64_t max_unfinished_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Arrivals arrivals_;
  uint64_t next_id_ = 1;
  int64_t num_unfinished_ = 0;
  std::string closed_;  ///< why; empty: it is not
};

}  // namespace farskip

#pragma once
// The sequences of one HTTP request, as the engine runs them.

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "infer/engine.h"

namespace farskip::serve {

class Sequences {
 public:
  struct Event {
    size_t sequence = 0;
    GenerationEvent event;
    double time_s = 0;  ///< when the engine told it, of monotonic_seconds()
  };

  /// Submits all or, where one is refused, none: throws what the service does. `service` must outlive it.
  Sequences(GenerationService& service, std::vector<GenerationRequest> requests);
  /// Cancels those that have not ended.
  ~Sequences();
  Sequences(const Sequences&) = delete;
  Sequences& operator=(const Sequences&) = delete;

  /// The next event of any of them; nothing where none comes within so many seconds.
  std::optional<Event> next(double seconds);
  /// Its last event may still come, or others before it.
  void cancel(size_t sequence);

 private:
  struct Inbox;

  GenerationService& service_;
  std::shared_ptr<Inbox> inbox_;  ///< also the engine's, which may tell more after a cancellation
  std::vector<uint64_t> ids_;
  std::vector<bool> ended_;
};

}  // namespace farskip::serve
